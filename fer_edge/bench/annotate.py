"""Draws estimates into frames, and writes annotated images and videos atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import FrameError, InputError, OutputError, require
from fer_edge.core.files import scratch_file, write_atomic, writing
from fer_edge.core.preprocess import check_image
from fer_edge.core.types import Uint8
from fer_edge.runtime.estimate import BoxXyxy, ExpressionEstimate

__all__ = [
    "AnnotatedVideo",
    "annotate_frame",
    "annotated_video",
    "check_annotation_path",
    "is_image_path",
    "pixelate",
    "write_annotated_image",
]

Colour = tuple[int, int, int]

_COLOURS: Final[dict[str, Colour]] = {"OK": (80, 200, 60), "DEGRADED": (40, 180, 240), "FAILED": (60, 60, 230)}
_WHITE: Final[Colour] = (255, 255, 255)
_DARK: Final[Colour] = (30, 30, 30)
_CODECS: Final = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".webm": "VP90"}
_LONGEST_STILL_S: Final = 60.0  # a longer gap between two frames is shortened to this, or a wrong time fills the disk
_BLOCKS: Final = 8  # of a pixelated face, along its longer side
_SPACE_BYTES: Final = 1 << 18  # that the disk must still take
_LOOK_EVERY: Final = 25  # frames between two looks at the disk
_IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


def annotate_frame(image: Uint8, estimates: Sequence[ExpressionEstimate]) -> Uint8:
    """Draw each face's box, label and probabilities into a copy of the frame.

    The box is green for OK, orange for DEGRADED, red for FAILED, and thicker for the driver's face.

    Args:
        image: uint8 (H, W, 3) BGR or (H, W) grey.
        estimates: those without a box are skipped.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        FrameError: another type or shape.
    """
    check_image(image)
    cv2 = require("cv2", needed_by="drawing annotations", extra="cpu")
    drawn: Uint8 = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    scale = max(0.35, min(drawn.shape[:2]) / 720)
    for estimate in estimates:
        if estimate.box_xyxy is not None:
            _draw(cv2, drawn, estimate, scale)
    return drawn


def pixelate(image: Uint8, boxes: Sequence[BoxXyxy]) -> Uint8:
    """Make faces unrecognisable in a copy of the frame; without a box the whole frame, where a face may be missed.

    Args:
        image: uint8 (H, W, 3) BGR or (H, W) grey.
        boxes: of the faces; each is enlarged by half, for hair and chin.

    Raises:
        FrameError: another type or shape.
    """
    check_image(image)
    cv2 = require("cv2", needed_by="drawing annotations", extra="cpu")
    rows, columns = image.shape[:2]
    hidden: Uint8 = image.copy()
    for left, top, right, bottom in boxes or [(0.0, 0.0, float(columns), float(rows))]:
        across, down = (right - left) / 4, (bottom - top) / 4
        x, y = max(0, round(left - across)), max(0, round(top - down))
        part = hidden[y : max(y, min(rows, round(bottom + down))), x : max(x, min(columns, round(right + across)))]
        if part.size:
            height, width = part.shape[:2]
            block = max(1, max(height, width) // _BLOCKS)
            small = cv2.resize(part, (-(-width // block), -(-height // block)), interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    return hidden


def _draw(cv2: Any, image: Uint8, estimate: ExpressionEstimate, scale: float) -> None:
    assert estimate.box_xyxy is not None
    left, top, right, bottom = (round(edge) for edge in estimate.box_xyxy)
    colour = _COLOURS[estimate.state]
    thickness = max(1, round((4 if estimate.driver else 2) * scale))
    cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)
    who = "driver" if estimate.driver else f"#{estimate.track_id}" if estimate.track_id else ""
    text = f"{who} {estimate.label} {estimate.probability:.0%}".strip()
    line = max(8, round(26 * scale))
    _write(cv2, image, text, (left, top - line if top >= line else bottom), scale, colour, line)
    row = max(9, round(18 * scale))
    length = max(20, right - left)
    for index, (label, probability) in enumerate(estimate.probabilities.items()):
        y = bottom + line * (top < line) + 2 + index * row
        end = left + round(length * probability)
        cv2.rectangle(image, (left, y), (left + length, y + row - 1), _DARK, -1)
        cv2.rectangle(image, (left, y), (end, y + row - 1), colour, -1)
        cv2.putText(image, label, (left + 2, y + row - 2), cv2.FONT_HERSHEY_SIMPLEX, row / 32, _WHITE, 1, cv2.LINE_AA)


def _write(cv2: Any, image: Uint8, text: str, corner: tuple[int, int], scale: float, colour: Colour, line: int) -> None:
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.75 * scale, 1)
    left, top = corner
    cv2.rectangle(image, (left, top), (left + width + 4, top + line), colour, -1)
    cv2.putText(
        image, text, (left + 2, top + line - line // 4), cv2.FONT_HERSHEY_SIMPLEX, 0.75 * scale, _DARK, 1, cv2.LINE_AA
    )


def is_image_path(path: Path) -> bool:
    """Return whether a file name ends in an image format that can be written."""
    return path.suffix.lower() in _IMAGES


def check_annotation_path(path: Path, *, still: bool) -> None:
    """Refuse a file name whose ending is no format that can be written.

    Args:
        still: write an image, else a video.

    Raises:
        InputError: with the known endings.
    """
    endings = sorted(_IMAGES if still else _CODECS)
    if path.suffix.lower() not in endings:
        kind = "image" if still else "video"
        raise InputError(f"{path}: got the ending {path.suffix!r}, expected for the annotated {kind} one of {endings}")


def write_annotated_image(path: Path, image: Uint8) -> None:
    """Write one image atomically, in the format of the path's ending.

    Raises:
        InputError: an unknown ending.
        OutputError: it cannot be written.
    """
    check_annotation_path(path, still=True)
    cv2 = require("cv2", needed_by="writing images", extra="cpu")
    try:
        encoded, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:  # JPEG holds at most 65,535 pixels a side, WebP 16,383
        encoded = False
        cause = f": {error.err}"
    else:
        cause = ""
    if not encoded:
        rows, columns = image.shape[:2]
        raise OutputError(f"{path}: OpenCV cannot encode {columns}x{rows} pixels in this format{cause}; choose .png")
    write_atomic(path, data.tobytes())


@contextlib.contextmanager
def annotated_video(path: Path, *, frame_rate: float) -> Iterator[AnnotatedVideo]:
    """Open a video file that appears when the block succeeds, and not at all otherwise.

    Args:
        path: the file to write; its ending is the format. Browsers play ``.webm`` (VP9), which takes longest to write.
        frame_rate: frames per second, to which frames are repeated or dropped by their times.

    Raises:
        InputError: an unknown ending.
        OutputError: the file cannot be written, or lacks frames.
    """
    check_annotation_path(path, still=False)
    with scratch_file(path.absolute()) as scratch:  # OpenCV takes a relative `a:b.mp4` for a protocol
        video = AnnotatedVideo(scratch, path=path, frame_rate=frame_rate)
        try:
            yield video
        finally:
            video.release()
        video.check()


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard what libraries print to the process's stderr while the block runs."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class AnnotatedVideo:
    """A video being written by `annotated_video`."""

    def __init__(self, scratch: Path, *, path: Path, frame_rate: float) -> None:
        self._cv2 = require("cv2", needed_by="writing video", extra="cpu")
        self._scratch = scratch
        self._path = path
        self._rate = frame_rate
        self._writer: Any = None
        self._last: Uint8 | None = None
        self._begun_s = self._last_s = 0.0
        self._count = 0

    def write(self, image: Uint8, *, timestamp_s: float) -> None:
        """Add a frame, uint8 (H, W, 3) BGR of the first one's size, at its time.

        The frame before is repeated up to that time; a frame too early for the next place of the video is dropped.

        Raises:
            FrameError: another size.
            OutputError: this OpenCV has no such encoder, or the disk is full.
        """
        if self._last is None:
            self._open((image.shape[1], image.shape[0]))
            self._begun_s = self._last_s = timestamp_s
        elif image.shape != self._last.shape:
            got, expected = (f"{each.shape[1]}x{each.shape[0]}" for each in (image, self._last))
            raise FrameError(f"frame: got {got} pixels, expected {expected}, the size of the video's first frame")
        self._begun_s += max(0.0, timestamp_s - self._last_s - _LONGEST_STILL_S)
        place = round((timestamp_s - self._begun_s) * self._rate)
        for each in [self._last] * (place - self._count) + [image] * (place >= self._count):
            self._writer.write(each)
            if self._count % _LOOK_EVERY == 0:
                self._check_space()
            self._count += 1
        self._last, self._last_s = image, timestamp_s

    def _open(self, size: tuple[int, int]) -> None:
        codec = _CODECS[self._path.suffix.lower()]
        with _no_stderr():  # where OpenCV reports that WebM has no codec tags
            fourcc = self._cv2.VideoWriter.fourcc(*codec)
            self._writer = self._cv2.VideoWriter(str(self._scratch), fourcc, self._rate, size)
        if not self._writer.isOpened():
            raise OutputError(f"this OpenCV cannot write {self._path} ({codec}); choose .avi or .mp4")

    def _check_space(self) -> None:
        """Try whether the disk takes some more, because OpenCV drops frames without an error when it does not."""
        with writing(self._path), tempfile.TemporaryFile(dir=self._scratch.parent, buffering=0) as probe:
            written = os.pwrite(probe.fileno(), bytes(_SPACE_BYTES), self._scratch.stat().st_size)
            if written < _SPACE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def release(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Read the file back, because a disk may be full between two looks at it.

        Raises:
            OutputError: the file lacks frames.
        """
        reader = self._cv2.VideoCapture(str(self._scratch))
        arrived = int(reader.get(self._cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        # An AVI's header counts frames that were never written, so read the last one.
        reader.set(self._cv2.CAP_PROP_POS_FRAMES, self._count - 1)
        whole = self._count > 0 and arrived == self._count and reader.read()[0]
        reader.release()
        if not whole:
            raise OutputError(
                f"cannot write {self._path}: got fewer than its {self._count} frames on disk. Free space or choose "
                "another folder; an earlier file of that name is unchanged."
            )
