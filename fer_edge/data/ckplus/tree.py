"""The sequences in both of CK+'s folder layouts: subject, number, frames in order, expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.cascade import load_cascade
from fer_edge.core.errors import DataError, FerEdgeError
from fer_edge.core.label_sets import CKPLUS_CODES, canonical_expression
from fer_edge.core.preprocess import PreprocessSpec, cut_face, prepare_face
from fer_edge.core.types import Uint8
from fer_edge.data.image_files import folder_entries, image_files, read_grey

__all__ = ["CROPPED_SIDE", "FACE_SIDE", "PEAK_FRAMES", "CkPlusSequence", "ckplus_sequences"]

FACE_SIDE: Final = 128
"""Default width and height of a face from the authors' tree."""

CROPPED_SIDE: Final = 48
"""Width and height of a face in CK+48."""

PEAK_FRAMES: Final = 3
"""Frames at the end of a sequence that show its expression."""

_FRAME: Final = re.compile(r"(S\d+)_(\d+)_(\d+)")
_IMAGE_FOLDERS: Final = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
_LABEL_FOLDERS: Final = ("Emotion", "Emotion_labels/Emotion", "Emotion_labels")


@dataclass(frozen=True, kw_only=True)
class CkPlusSequence:
    """One sequence; `read_faces` decodes it.

    Attributes:
        subject: for example ``"S005"``.
        number: the sequence's number within the subject, for example ``"001"``.
        frames: image files from neutral to peak; in CK+48 only the last three.
        expression: one of `EXPRESSIONS` or ``"contempt"``; None without a label.
        cropped: the images are faces (CK+48), not camera images (the authors' tree).
        label_file: the file of the label, in the authors' tree.
    """

    subject: str
    number: str
    frames: tuple[Path, ...]
    expression: str | None
    cropped: bool
    label_file: Path | None = field(default=None, repr=False)

    @property
    def side(self) -> int:
        """Default width and height of its faces."""
        return CROPPED_SIDE if self.cropped else FACE_SIDE

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the sequence."""
        return self.frames if self.label_file is None else (*self.frames, self.label_file)

    def read_faces(self, frames: Sequence[int] | None = None, *, size: int = FACE_SIDE) -> Uint8:
        """Decode frames and crop them with one face box for the whole sequence.

        Args:
            frames: positions in `frames`; None for all.
            size: width and height of the result in pixels.

        Returns:
            uint8 (T, size, size) grey.

        Raises:
            DataError: an unreadable image, a frame of another size than the first (or than 48x48 in CK+48), or no face
                in any frame.
        """
        chosen = range(len(self.frames)) if frames is None else frames
        images = [read_grey(self.frames[place]) for place in chosen]
        rows, columns = (CROPPED_SIDE, CROPPED_SIDE) if self.cropped else images[0].shape
        for place, image in zip(chosen, images, strict=True):
            if image.shape != (rows, columns):
                got = f"{image.shape[1]}x{image.shape[0]}"
                raise DataError(f"{self.frames[place]}: {got} pixels, expected {columns}x{rows} as in its sequence")
        box = (0, 0, columns, rows) if self.cropped else self._face_box()
        spec = PreprocessSpec(size=size)
        return np.stack([prepare_face(cut_face(image, box, spec), spec) for image in images])

    def _face_box(self) -> tuple[int, int, int, int]:
        for path in (self.frames[0], self.frames[-1], *self.frames[1:-1]):
            if (box := _largest_face(read_grey(path))) is not None:
                return box
        raise DataError(f"no face found in {self.frames[0]} nor in {self.frames[-1]} nor between; crop them yourself")


def ckplus_sequences(path: Path) -> tuple[CkPlusSequence, ...]:
    """List every sequence by subject and number, including unlabelled ones and contempt.

    Args:
        path: the folder that holds ``cohn-kanade-images`` and ``Emotion``, or ``CK+48``, or the expressions' folders.

    Raises:
        DataError: neither layout is found, a name is not CK+'s, a label is unknown, or a labelled frame is missing.
    """
    images = next((path / name for name in _IMAGE_FOLDERS if (path / name).is_dir()), None)
    if images is None:
        return _cropped_sequences(path / "CK+48" if (path / "CK+48").is_dir() else path)
    labels = next((path / name for name in _LABEL_FOLDERS if (path / name).is_dir()), None)
    if labels is None:
        raise DataError(f"{path} holds {images.name} and no labels; expected the folder Emotion beside it")
    return _whole_sequences(images, labels)


def _cropped_sequences(root: Path) -> tuple[CkPlusSequence, ...]:
    frames: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    expressions: dict[tuple[str, str], str] = {}
    for folder in folder_entries(root):
        try:
            expression = canonical_expression(folder.name)
        except FerEdgeError as error:
            raise DataError(
                f"{folder}: {error}. Expected {_IMAGE_FOLDERS[0]}/ and {_LABEL_FOLDERS[0]}/, or CK+48/, in {root}"
            ) from error
        for file in image_files(folder):
            subject, number, frame = _frame_name(file)
            if expressions.setdefault((subject, number), expression) != expression:
                raise DataError(f"{file}: sequence {subject}_{number} is in the folder of another expression too")
            frames.setdefault((subject, number), []).append((frame, file))
    if not frames:
        raise DataError(f"{root} is empty; expected {_IMAGE_FOLDERS[0]}/ and {_LABEL_FOLDERS[0]}/, or CK+48/")
    return tuple(
        CkPlusSequence(
            subject=subject,
            number=number,
            frames=tuple(file for _, file in sorted(frames[subject, number])),
            expression=expressions[subject, number],
            cropped=True,
        )
        for subject, number in sorted(frames)
    )


def _whole_sequences(images: Path, labels: Path) -> tuple[CkPlusSequence, ...]:
    labelled = _labels(labels)
    found = []
    for folder in (sequence for subject in folder_entries(images) for sequence in folder_entries(subject)):
        subject, number = folder.parent.name, folder.name
        frames = {}
        for file in image_files(folder):
            *owner, frame = _frame_name(file)
            if owner != [subject, number]:
                raise DataError(f"{file}: expected frames of {subject}_{number} in this folder")
            frames[frame] = file
        expression, peak, label_file = labelled.pop((subject, number), (None, max(frames), None))
        if peak not in frames:
            raise DataError(f"{label_file} labels frame {peak}, which is missing in {folder}")
        kept = tuple(frames[frame] for frame in sorted(frames) if frame <= peak)
        if label_file and len(kept) <= PEAK_FRAMES:
            raise DataError(f"{folder}: {len(kept)} frames, expected a neutral one and {PEAK_FRAMES} of the peak")
        found.append(
            CkPlusSequence(
                subject=subject,
                number=number,
                frames=kept,
                expression=expression,
                cropped=False,
                label_file=label_file,
            )
        )
    if labelled:
        _, _, label_file = next(iter(labelled.values()))
        raise DataError(f"{label_file} labels a sequence that is missing in {images}")
    if not found:
        raise DataError(f"{images} is empty; expected {images}/S005/001/S005_001_00000001.png and so on")
    return tuple(found)


def _labels(root: Path) -> dict[tuple[str, str], tuple[str, int, Path]]:
    """Return (subject, sequence) -> expression, labelled frame, file."""
    found: dict[tuple[str, str], tuple[str, int, Path]] = {}
    for file in sorted(root.glob("S*/*/*_emotion.txt")):
        subject, number, frame = _frame_name(file, suffix="_emotion")
        if (subject, number) in found:
            raise DataError(f"{file}: the sequence has another label in {found[subject, number][2]}")
        try:
            code = float(file.read_text("ascii"))
            expression = CKPLUS_CODES[int(code)] if code.is_integer() else ""
        except (OSError, ValueError, KeyError):
            expression = ""
        if not expression:
            meaning = ", ".join(f"{code} {name}" for code, name in CKPLUS_CODES.items())
            raise DataError(f"{file}: expected one number ({meaning})")
        found[subject, number] = (expression, frame, file)
    return found


def _frame_name(file: Path, *, suffix: str = "") -> tuple[str, str, int]:
    """Parse subject, sequence and frame number from a file's name."""
    match = _FRAME.fullmatch(file.stem.removesuffix(suffix))
    if match is None:
        raise DataError(f"{file}: expected a name such as S010_004_00000017{suffix}{file.suffix}")
    return match[1], match[2], int(match[3])


def _largest_face(image: Uint8) -> tuple[int, int, int, int] | None:
    """Return the xyxy box in pixels of the largest frontal face of at least a quarter of the image's height."""
    smallest = min(image.shape) // 4
    found = load_cascade().detectMultiScale(image, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest))
    if not len(found):
        return None
    left, top, width, height = (int(edge) for edge in max(found, key=lambda box: box[2] * box[3]))
    return left, top, left + width, top + height
