"""Wrong Python types at the public API: always a `FerEdgeError` with the form of message, never anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import SIZE, tiny_bundle

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, FrameError, InputError
from fer_edge.core.preprocess import PreprocessSpec, cut_face, prepare_face, prepare_stills
from fer_edge.runtime.detector import CropGeometry
from fer_edge.runtime.face_finder import FaceFinder
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.providers import IDENTITY_GRAPH, open_session
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.streaming import StreamOptions
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import VideoRecognizer
from fer_edge.runtime.video_source import open_source

FACE = np.zeros((SIZE, SIZE), np.uint8)
FRAME = np.zeros((60, 80, 3), np.uint8)
SPEC = PreprocessSpec(size=SIZE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def recognizer(bundle: Bundle) -> Iterator[Recognizer]:
    with Recognizer(bundle, quality=None) as opened:
        yield opened


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: Recognizer(None), r"bundle: got NoneType None, expected a Bundle, its folder"),
        (lambda _: Recognizer(3), r"bundle: got int 3"),
        (lambda b: Recognizer(b, threads=1.5), r"threads: got 1\.5, expected a whole number from 1"),
        (lambda b: Recognizer(b, threads=True), r"threads: got True"),
        (lambda b: Recognizer(b, threads=10**400), r"threads: got 1000"),
        (lambda b: Recognizer(b, provider=None), r"provider: got NoneType"),
        (lambda b: Recognizer(b, provider=()), r"provider: got ''"),
        (lambda b: Recognizer(b, provider=("cpu", "gpu")), r"provider: got 'gpu'"),
        (lambda b: Recognizer(b, quality="good"), r"quality: got str 'good'"),
        (lambda b: Recognizer(b, public_key=7), r"public_key: got int 7"),
        (lambda b: Recognizer(b, variant=7), r"variant: got int 7"),
        (lambda b: Recognizer(b, engines=7), r"engines: got int 7"),
        (lambda _: open_session(None), r"graph: got NoneType"),
        (lambda _: open_session(IDENTITY_GRAPH, provider=np.zeros(3)), r"provider: got ndarray"),
        (lambda _: VideoRecognizer(None), r"recognizer: got NoneType"),
        (lambda _: FaceFinder("haar"), r"detector: got str, expected an object with a method detect"),
        (lambda _: StreamOptions(max_gap_s="1"), r"max_gap_s: got '1', expected a positive number"),
        (lambda _: TrackerOptions(stable_after=2.5), r"stable_after: got 2\.5"),
        (lambda _: CropGeometry(scale=0), r"scale: got 0"),
        (lambda _: HaarDetector(min_neighbours=None), r"min_neighbours: got None"),
        (lambda _: open_source(0), r"source: got int 0"),
        (lambda _: PreprocessSpec(margin="0"), r"margin: got '0'"),
        (lambda _: PreprocessSpec(size=None), r"size: got None"),
    ],
)
def test_wrong_arguments(bundle: Bundle, call: Callable[[Bundle], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(bundle)


@pytest.mark.parametrize("time_s", [None, "now", 10**400, float("nan"), float("inf"), 1j, [0.0], True, np.zeros(2)])
def test_a_time_that_is_none(recognizer: Recognizer, time_s: Any) -> None:
    for update in (
        lambda: recognizer.stream().update(FACE, timestamp_s=time_s),
        lambda: VideoRecognizer(recognizer).process(FRAME, timestamp_s=time_s, boxes=[]),
    ):
        with pytest.raises(FrameError, match=r"timestamp_s: got .*, expected a finite number"):
            update()


def test_a_late_or_repeated_frame_is_skipped_and_the_next_one_succeeds(recognizer: Recognizer) -> None:
    stream, video = recognizer.stream(), VideoRecognizer(recognizer)
    box = [(10.0, 10.0, 50.0, 50.0)]
    stream.update(FACE, timestamp_s=5.0)
    video.process(FRAME, timestamp_s=5.0, boxes=box)
    for time_s in (5.0, 4.9, -1.0):
        with pytest.raises(FrameError, match=r"timestamp_s: got .*, expected later than the previous .* 5\.000000"):
            stream.update(FACE, timestamp_s=time_s)
        with pytest.raises(FrameError, match="timestamp_s"):
            video.process(FRAME, timestamp_s=time_s, boxes=box)
    assert stream.update(FACE, timestamp_s=5.1).window_fill == 0.5
    result = video.process(FRAME, timestamp_s=np.float32(5.5), boxes=box)
    assert (result.index, result.estimates[0].track_id) == (1, 1)


THINGS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.one_of(st.floats(), st.text(max_size=3), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [
            np.zeros(()),
            np.zeros((3, 3)),
            np.zeros((0, 4), np.uint8),
            np.array("x"),
            np.array([None]),
            object(),
            int,
            "\0",
        ]
    ),
)


@given(thing=THINGS, place=st.integers(0, 16))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_anywhere_is_accepted_or_refused_by_our_own_error(
    bundle: Bundle, recognizer: Recognizer, thing: Any, place: int
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: Recognizer(thing).close(),
        lambda: Recognizer(bundle, variant=thing).close(),
        lambda: Recognizer(bundle, provider=thing).close(),
        lambda: Recognizer(bundle, threads=thing if not isinstance(thing, int) or thing < 4 else 1).close(),
        lambda: recognizer.recognize(thing),
        lambda: recognizer.recognize_stills(thing),
        lambda: recognizer.recognize_clip(thing),
        lambda: recognizer.stream(clock=thing),
        lambda: recognizer.stream(options=thing),
        lambda: recognizer.update_streams(thing, [FACE], timestamp_s=0.0),
        lambda: recognizer.stream().update(FACE, timestamp_s=thing),
        lambda: VideoRecognizer(recognizer).process(FRAME, timestamp_s=0.0, boxes=thing),
        lambda: VideoRecognizer(recognizer).process(thing, timestamp_s=0.0, boxes=[]),
        lambda: VideoRecognizer(recognizer, detector=thing, tracking=thing, streaming=thing),
        lambda: cut_face(FRAME, thing, SPEC),
        lambda: (prepare_face(thing, SPEC), prepare_stills(thing, SPEC)),
        lambda: open_source("" if isinstance(thing, str) and thing.isdecimal() else thing),
    ]
    with contextlib.suppress(FerEdgeError):  # anything else fails the test
        calls[place]()


def test_paths_are_given_as_text_too(bundle: Bundle, tmp_path: Path) -> None:
    with Recognizer(str(bundle.path), engines=str(tmp_path), quality=None) as opened:
        assert opened.recognize(FACE).state == "OK"
