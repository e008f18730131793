from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fer_edge.errors import InputError
from fer_edge.runtime.sources import open_source


@pytest.fixture
def video(tmp_path: Path) -> str:
    """Five frames of noise at 10 a second."""
    path = str(tmp_path / "noise.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for image in np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8):
        writer.write(image)
    writer.release()
    return path


@pytest.mark.parametrize("old", [False, True])
def test_a_file_is_read_also_by_an_opencv_without_log_levels(
    old: bool, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cv2.utils.logging` is missing in OpenCV 4.8.0, which JetPack 6 brings, and before."""
    if old:
        monkeypatch.setattr(cv2, "utils", SimpleNamespace())
    with open_source(video) as frames:
        assert [round(frame.timestamp_s, 3) for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.02)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(InputError, match="OpenCV cannot read it as a video"):
        open_source(str(broken))
