"""Image files and class folders: read as grey and checked; an unexpected file is an error, never skipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError, FerEdgeError, require
from fer_edge.core.images import decode_image
from fer_edge.core.label_sets import expression_index
from fer_edge.core.preprocess import PreprocessSpec, prepare_face
from fer_edge.core.types import Progress, Uint8

__all__ = ["class_images", "folder_entries", "image_files", "read_grey", "read_stack"]

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm")  # known without a look inside
_SYSTEM_FILES: Final = ("Thumbs.db", "desktop.ini", "__MACOSX")
_PROGRESS_STEP = 256


def read_grey(path: Path) -> Uint8:
    """Read an image file to uint8 (H, W) grey.

    Raises:
        DataError: the file cannot be read or is not an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_image(data, where=str(path), grey=True)


def read_stack(
    paths: Sequence[Path], *, cure: str, progress: Progress, side: int | None = None, resize: int | None = None
) -> Uint8:
    """Read image files to uint8 (N, H, W) grey.

    Args:
        paths: at least one file.
        cure: the end of the message about an image of another size.
        side: the required width and height; without it, those of the first image.
        resize: resize every image to this width and height instead.

    Raises:
        DataError: a file cannot be read, is not an image, or has another size.
    """
    spec = PreprocessSpec(size=resize) if resize else None
    stack = np.empty((len(paths), side or 0, side or 0), np.uint8)
    for place, path in enumerate(paths):
        if place % _PROGRESS_STEP == 0:
            progress("reading images", place, len(paths))
        image = read_grey(path) if spec is None else prepare_face(read_grey(path), spec)
        if place == 0 and side is None:
            stack = np.empty((len(paths), *image.shape), np.uint8)
        if image.shape != stack.shape[1:]:
            height, width = stack.shape[1:]
            like = "" if side else f", the size of {paths[0]}"
            raise DataError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, expected {width}x{height}{like}. {cure}"
            )
        stack[place] = image
    progress("reading images", len(paths), len(paths))
    return stack


def folder_entries(folder: Path) -> list[Path]:
    """List a folder by name, without hidden files and what operating systems add (Thumbs.db).

    Raises:
        DataError: `folder` cannot be listed.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
    kept = (entry for entry in entries if not entry.name.startswith(".") and entry.name not in _SYSTEM_FILES)
    return sorted(kept, key=lambda entry: entry.name)


def image_files(folder: Path) -> list[Path]:
    """List the image files of a folder that holds nothing else.

    Raises:
        DataError: the folder is empty or holds something else.
    """
    files = folder_entries(folder)
    for file in files:
        if not file.is_file() or not (file.suffix.lower() in _SUFFIXES or _holds_image(file)):
            raise DataError(f"{file}: expected only images in this folder; move it elsewhere")
    if not files:
        raise DataError(f"{folder} holds no image; fill the folder or remove it")
    return files


def _holds_image(file: Path) -> bool:
    cv2 = require("cv2", needed_by="reading images", extra="cpu")
    return bool(cv2.haveImageReader(str(file)))


def class_images(folder: Path) -> list[tuple[Path, int]]:
    """List the images of class folders, each with its index in `EXPRESSIONS`, ordered by that index.

    Raises:
        DataError: an entry is not a folder named after one of the seven expressions, or is empty.
    """
    found: list[tuple[Path, int]] = []
    for entry in folder_entries(folder):
        if not entry.is_dir():
            raise DataError(f"{entry}: expected only folders named after expressions here, as in {folder}/happy/")
        try:
            label = expression_index(entry.name)
        except FerEdgeError as error:
            raise DataError(f"{entry}: {error}") from error
        found += [(file, label) for file in image_files(entry)]
    if not found:
        raise DataError(f"{folder} is empty; expected folders named after expressions, as in {folder}/happy/")
    return sorted(found, key=lambda still: still[1])
