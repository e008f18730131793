from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_bundle

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError, SessionError
from fer_edge.runtime import (
    HaarDetector,
    LiveRecognizer,
    Recognizer,
    SourceFrame,
    VideoRecognizer,
    VideoSource,
)

_FACE = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


def _recognise(recognizer: Recognizer) -> dict[str, float]:
    with recognizer:
        return dict(recognizer.recognize(_FACE).probabilities)


@pytest.mark.parametrize("opened", [False, True])
def test_a_recognizer_is_opened_again_in_a_spawned_process(bundle: Path, opened: bool) -> None:
    source: Any = Bundle.open(bundle) if opened else bundle
    with Recognizer(source, variant="fp32") as recognizer:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            there = pool.submit(_recognise, recognizer).result()
        assert there == pytest.approx(recognizer.recognize(_FACE).probabilities)


def test_what_is_opened_again_keeps_its_arguments(bundle: Path) -> None:
    with Recognizer(bundle, variant="fp32", threads=2) as recognizer:
        recognizer.change_variant("auto")
        with pickle.loads(pickle.dumps(recognizer)) as again, copy.copy(recognizer) as copied:
            assert again.info == copied.info == recognizer.info
            assert again.network is not recognizer.network
    image = np.zeros((120, 160), np.uint8)
    assert copy.deepcopy(HaarDetector(min_face=0.3)).detect(image) == ()


def _sources() -> VideoSource:
    return VideoSource(iter([SourceFrame(image=_FACE, timestamp_s=0.0)]), name="own", kind="file", frame_rate=1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda recognizer: recognizer.stream(),
        lambda recognizer: VideoRecognizer(recognizer),
        lambda recognizer: LiveRecognizer(recognizer, detector=None),
        lambda recognizer: recognizer.network,
        lambda recognizer: recognizer.network.encoder,
        lambda recognizer: _sources(),
    ],
)
def test_the_rest_says_what_to_do(bundle: Path, make: Callable[[Recognizer], Any]) -> None:
    with Recognizer(bundle) as recognizer:
        made = make(recognizer)
        for send in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(InputError, match="open another one there"):
                send(made)
        getattr(made, "close", lambda: None)()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_is_told_to_open_its_own(bundle: Path) -> None:
    """A call would wait for ever for the engine's threads, which a fork does not copy."""
    recognizer, detector = Recognizer(bundle, threads=2, quality=None), HaarDetector()
    video, network = VideoRecognizer(recognizer, detector=detector), recognizer.network
    live, source = LiveRecognizer(recognizer, detector=None), _sources()
    uses: list[Callable[[], object]] = [
        lambda: recognizer.recognize(_FACE),
        lambda: recognizer.stream().update(_FACE, timestamp_s=0.0),
        lambda: network.encode(np.zeros((1, network.frame_size, network.frame_size), np.uint8)),
        lambda: video.process(_FACE, timestamp_s=0.0),
        lambda: video.process_still(_FACE),
        lambda: live.push(_FACE),
        lambda: next(iter(source)),
    ]
    child = os.fork()
    if not child:
        signal.alarm(20)
        refused = 0
        for use in uses:
            try:
                said = use()
            except SessionError as error:
                said = error
            refused += "forked process" in str(getattr(said, "state_because", said))
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(uses)
    assert set(recognizer.recognize(_FACE).probabilities) == set(recognizer.labels)
    live.close()
    recognizer.close()
