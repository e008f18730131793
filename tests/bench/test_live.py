"""The scripts that measure the live path: `bench/live.py` and `bench/crop_geometry.py`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script
from tiny import tiny_bundle

from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import VideoRecognizer


class Fixed:
    def __init__(self, *boxes: BoxXyxy) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray) -> tuple[BoxXyxy, ...]:
        return self.boxes


def test_live_counts_the_driver_and_identities(tmp_path: Path) -> None:
    live = load_script("bench/live.py")
    face, away = (20.0, 20.0, 80.0, 80.0), (100.0, 20.0, 140.0, 60.0)
    still = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    clip = live.Clip(frames=[still] * 3, boxes=[(face, away)] * 3)
    with Recognizer(tiny_bundle(tmp_path / "bundle"), quality=None) as recognizer:
        video = VideoRecognizer(recognizer, detector=Fixed(face), tracking=TrackerOptions(search_s=0.01))
        found = live.measure(video, clip, frames=10)
    assert (found["driver_share"], found["first_driver_frame"], found["tracks"]) == (0.8, 2, 1)
    assert found["faces"] == [{"share": 1.0, "identities": 1}, {"share": 0.0, "identities": 0}]
    times = found["cpu_ms"]
    assert times["total"]["mean"] == pytest.approx(times["follow"]["mean"] + times["recognise"]["mean"])
    assert list(itertools.islice(live.there_and_back(3), 6)) == [0, 1, 2, 1, 0, 1]


def test_drawn_clips_have_the_boxes_of_their_faces() -> None:
    clip = load_script("bench/live.py").drawn(3)
    assert {len(boxes) for boxes in clip.boxes} == {3}
    assert len(clip.frames) == len(clip.boxes)
    assert {frame.shape for frame in clip.frames} == {(480, 640, 3)}


def test_crop_geometry_leads_from_the_box_to_the_training_crop() -> None:
    script = load_script("bench/crop_geometry.py")
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    crop = (96.0, 96.0, 288.0, 288.0)  # of the padded scene, 384 pixels wide
    scale, shift_x, shift_y = script.relation(Fixed((120.0, 140.0, 248.0, 268.0)), face)
    applied = script.CropGeometry(scale=scale, shift_x=shift_x, shift_y=shift_y).apply((120.0, 140.0, 248.0, 268.0))
    assert applied == pytest.approx(crop)
    assert script.relation(Fixed(), face) is None
    assert script.relation(Fixed((100.0, 100.0, 140.0, 140.0)), face) is None, "a part of a face"
