"""Many photographs as one source: a folder, a glob, a numbered pattern, a list file."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fer_edge.core.errors import DataError, InputError
from fer_edge.runtime.video_source import SourceFrame, VideoSource, open_source

__all__ = ["PictureSource", "picture_files"]

_HINT: Final = "name photographs alone, such as 'FOLDER/*.jpg'; run videos one by one"


def picture_files(spec: str) -> list[Path] | None:
    """List the files that a spec of many photographs names, in order; None for any other source.

    Args:
        spec: a folder; a glob (``faces/*.jpg``, ``faces/**/*.png``); a numbered pattern (``frame_%04d.png``), in the
            order of its numbers; or a list file (``.txt``), one path per line, relative to the list's folder. A file
            that exists is no pattern.

    Raises:
        InputError: nothing of that name, or a list that names what does not exist.
    """
    path = Path(spec)
    if "://" in spec or " ! " in spec:
        return None
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    elif path.is_file():
        text = _text(path) if path.suffix.lower() == ".txt" else None
        if text is None:
            return None
        files = _listed(path, text)
    elif numbers := re.search(r"%(?:0\d+)?d", path.name):
        pattern = re.escape(path.name[: numbers.start()]) + r"(\d+)" + re.escape(path.name[numbers.end() :])
        found = [(re.fullmatch(pattern, each.name), each) for each in _entries(path.parent)]
        files = [each for _, each in sorted((int(match[1]), each) for match, each in found if match)]
    elif set(spec) & set("*?["):
        files = sorted(each for each in map(Path, glob.glob(spec, recursive=True)) if each.is_file())
    else:
        return None
    if not files:
        raise InputError(f"source: got {spec!r}, which names no file, expected at least one photograph")
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror or error}") from error


def _text(file: Path) -> str | None:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError:  # a photograph under a strange name
        return None


def _listed(file: Path, text: str) -> list[Path]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if name := line.strip():
            found.append(file.parent / name)
            if not found[-1].is_file():
                raise InputError(f"{file}, line {number}: got {name!r}, expected a file that exists")
    return found


class PictureSource(VideoSource):
    """Photographs one after the other, each recognised by itself.

    Attributes:
        unread: what was wrong with each photograph that could not be read and was skipped.

    Args:
        name: the source as the user gave it.
        files: at least one photograph.

    Raises:
        InputError: the first file is a video.

    Example:
        >>> from fer_edge.bench.picture_files import PictureSource, picture_files
        >>> with PictureSource("faces/*.png", picture_files("faces/*.png")) as source:  # doctest: +SKIP
        ...     [frame.name for frame in source]
    """

    def __init__(self, name: str, files: list[Path]) -> None:
        self.unread: list[str] = []
        super().__init__(self._read(files), name=name, kind="image", frame_rate=1.0, count=len(files))

    def _read(self, files: list[Path]) -> Iterator[SourceFrame]:
        for file in files:
            try:
                with open_source(str(file)) as source:
                    if source.kind != "image":
                        raise InputError(f"source: got {file}, a video; {_HINT}")
                    [frame] = source
            except DataError as error:
                self.unread.append(str(error))
                self.skipped += 1
                continue
            yield SourceFrame(image=frame.image, timestamp_s=0.0, name=str(file))
        if self.skipped == len(files):
            raise DataError(f"{self.name}: got no photograph that can be read, expected at least one; {_HINT}")
