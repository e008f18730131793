"""The short forms of fuzzing and of the long run; bench/results holds the long ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scripts import load_script

from fer_edge.data.faces import synthetic_stills
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets alarms")


def test_hostile_arguments_get_our_own_errors() -> None:
    found = load_script("bench/fuzz.py").fuzz_api(1_000_000, 1500)
    assert found["faults"] == []
    assert found["outcomes"]["returned"] > 200
    assert {"InputError", "FrameError", "BundleError"} <= set(found["outcomes"])


def test_damaged_bundles_get_our_own_errors_and_never_hang() -> None:
    found = load_script("bench/fuzz.py").fuzz_bundles(1_000_000, 150)
    assert found["faults"] == []
    assert sum(found["outcomes"].values()) == 150
    assert "BundleError though verify passed" not in found["outcomes"]  # the other way round: a head that did not run


def test_a_long_run_keeps_threads_files_and_memory() -> None:
    script = load_script("bench/soak.py")
    faces = synthetic_stills(7, seed=2, size=64)[0]
    frame = np.zeros((90, 120), np.uint8)
    with Recognizer("nano") as recognizer:
        stream, video = recognizer.stream(), VideoRecognizer(recognizer)

        def step(index: int) -> None:
            stream.update(faces[index % 7], timestamp_s=index / 30)
            frame[10:74, 20:84] = faces[index % 7]
            video.process(frame, timestamp_s=index / 30, boxes=[(20, 10, 84, 74)] if index % 10 else [])

        found = script.soak(step, 1500, seconds=60, what="both")
    assert found["steps"] == 1500
    assert found["threads"]["after"] <= found["threads"]["before"]
    assert found["open_files"]["after"] <= found["open_files"]["before"]
    assert found["resident_bytes"]["growth"] < 2e6
