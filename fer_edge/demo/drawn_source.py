"""Drawn faces as a video source, beside the files and cameras of `fer_edge.runtime`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer_edge.bench.picture_files import PictureSource, picture_files
from fer_edge.core.label_sets import canonical_expression
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.runtime.video_source import SourceFrame, VideoSource, open_source

__all__ = ["drawn_source", "open_any_source"]

_RATE: Final = 20.0
_FRAMES: Final = 30  # of each expression
_SIZE: Final = (480, 360)


def open_any_source(spec: str) -> VideoSource:
    """Open drawn faces (``synthetic``, ``synthetic:happy``), many photographs, or what `open_source` opens.

    Raises:
        InputError: an unknown expression, or as `open_source`.
        DataError, MissingPackageError: as `open_source`.
    """
    word, _, expression = spec.partition(":")
    drawn = word == "synthetic" and not Path(spec).is_file()
    if drawn:
        return drawn_source(expression)
    files = picture_files(spec)
    return open_source(spec) if files is None else PictureSource(spec, files)


def drawn_source(expression: str = "") -> VideoSource:
    """Draw 30 frames of one expression, or of each where none is named, with the faces' boxes.

    Raises:
        InputError: an unknown expression.
        MissingPackageError: OpenCV is not installed.
    """
    from fer_edge.data.faces import synthetic_frames  # a camera's run needs no drawing

    shown = (canonical_expression(expression),) if expression else EXPRESSIONS
    count = len(shown) * _FRAMES
    drawn = synthetic_frames(shown, frames=count, frame_rate=_RATE, seed=0, size=_SIZE)
    frames = (SourceFrame(image=each.image, timestamp_s=each.time_s, boxes=(each.box_xyxy,)) for each in drawn)
    name = f"synthetic:{expression}" if expression else "synthetic"
    return VideoSource(frames, name=name, kind="synthetic", frame_rate=_RATE, count=count)
