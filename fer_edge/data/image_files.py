"""Image files and the folders that hold them: read as grey, checked, nothing passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import InputError, require
from fer_edge.core.labels import expression_index
from fer_edge.core.types import Progress, Uint8

__all__ = ["class_images", "counted", "decode_grey", "folder_entries", "image_files", "read_grey", "read_stack"]

_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm")
_SYSTEM_FILES: Final = ("Thumbs.db", "desktop.ini", "__MACOSX")
_PROGRESS_STEP = 256


def decode_grey(data: bytes, *, where: str) -> Uint8:
    """Decode an encoded image, colour or grey, to uint8 (H, W) grey.

    Raises:
        InputError: the bytes are no image; the message begins with `where`.
    """
    cv2 = require("cv2", needed_by="reading images", extra="cpu")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    except cv2.error as error:
        raise InputError(f"{where}: cannot be decoded as an image ({error.err})") from error
    if image is None:
        raise InputError(f"{where}: {len(data):,} bytes that cannot be decoded as an image; it may be cut short")
    grey: Uint8 = image
    return grey


def read_grey(path: Path) -> Uint8:
    """Read an image file to uint8 (H, W) grey.

    Raises:
        InputError: the file cannot be read or is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return decode_grey(data, where=str(path))


def read_stack(paths: Sequence[Path], *, side: int | None = None, cure: str, progress: Progress) -> Uint8:
    """Read image files of one size to uint8 (N, H, W) grey.

    Args:
        paths: at least one file.
        side: the width and height that every image must have; without it, the first image's.
        cure: what the user can do about an image of another size; ends the message.
        progress: called as the files are read.

    Raises:
        InputError: a file cannot be read, is no image, or has another size.
    """
    first = read_grey(paths[0])
    height, width = (side, side) if side else first.shape
    like = "" if side else f", the size of {paths[0]}"
    stack = np.empty((len(paths), height, width), np.uint8)
    for place, path in enumerate(counted(paths, progress)):
        image = first if place == 0 else read_grey(path)
        if image.shape != (height, width):
            raise InputError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, expected {width}x{height}{like}. {cure}"
            )
        stack[place] = image
    return stack


def counted(paths: Sequence[Path], progress: Progress) -> Iterator[Path]:
    """Iterate over `paths`, telling `progress` how far it is."""
    for done, path in enumerate(paths):
        if done % _PROGRESS_STEP == 0:
            progress("reading images", done, len(paths))
        yield path
    progress("reading images", len(paths), len(paths))


def folder_entries(folder: Path) -> list[Path]:
    """What stands in a folder, by name, without what operating systems leave there (hidden files, Thumbs.db).

    Raises:
        InputError: `folder` is no folder, or cannot be listed.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or error}") from error
    kept = (entry for entry in entries if not entry.name.startswith(".") and entry.name not in _SYSTEM_FILES)
    return sorted(kept, key=lambda entry: entry.name)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder that holds nothing else.

    Raises:
        InputError: the folder is empty, or holds something that is no image file.
    """
    files = folder_entries(folder)
    for file in files:
        if file.suffix.lower() not in _SUFFIXES or not file.is_file():
            raise InputError(f"{file}: expected only images in this folder ({', '.join(_SUFFIXES)}); move it elsewhere")
    if not files:
        raise InputError(f"{folder} holds no image; fill the folder or remove it")
    return files


def class_images(folder: Path) -> list[tuple[Path, int]]:
    """The images of a folder whose subfolders are named after expressions, each with its index in `EXPRESSIONS`.

    Raises:
        InputError: something in the folder is no subfolder named after one of the seven, or a subfolder is empty.
    """
    found: list[tuple[Path, int]] = []
    for entry in folder_entries(folder):
        if not entry.is_dir():
            raise InputError(f"{entry}: expected only folders named after expressions here, as in {folder}/happy/")
        try:
            label = expression_index(entry.name)
        except InputError as error:
            raise InputError(f"{entry}: {error}") from error
        found += [(file, label) for file in image_files(entry)]
    if not found:
        raise InputError(f"{folder} is empty; expected folders named after expressions, as in {folder}/happy/")
    return sorted(found, key=lambda still: still[1])
