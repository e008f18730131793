"""Data specs, such as ``fer2013:~/data/fer2013.csv``, and the one function that reads them all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fer_edge.core.errors import InputError
from fer_edge.core.files import default_cache_folder
from fer_edge.core.labels import CKPLUS_EMOTIONS, EXPRESSIONS
from fer_edge.core.types import Progress, no_progress
from fer_edge.data.cache import ReadPlan, cached
from fer_edge.data.dataset import Dataset

__all__ = ["DataSpec", "ckplus_expressions", "load_dataset"]

_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "fer2013": (),
    "ckplus": ("size", "fold"),
    "folder": ("size",),
    "synthetic": ("size",),
}
_WORDS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {"ckplus": {"labels": ("seven", "official")}}
_FORMS: Final = "fer2013:PATH, ckplus:PATH[?fold=K], folder:PATH[?size=S], synthetic[:COUNT[@SEED]]"
_SIZES: Final = range(16, 513)
_COUNTS: Final = range(1, 1_000_001)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A parsed data spec.

    Attributes:
        kind: ``"fer2013"``, ``"ckplus"``, ``"folder"`` or ``"synthetic"``.
        where: what stands between the colon and the question mark: a path, or ``COUNT@SEED``.
        options: the numbers behind the question mark.
        words: the words behind it.
    """

    kind: str
    where: str
    options: Mapping[str, int]
    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Parse ``KIND:WHERE?OPTION=VALUE&...``.

        Raises:
            InputError: an unknown kind or option, or a path that is missing.
        """
        kind, _, rest = text.partition(":")
        kind, _, bare_query = kind.partition("?")
        where, _, query = rest.partition("?")
        if kind not in _OPTIONS:
            near = difflib.get_close_matches(kind, _OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}? There are" if near else "expected"
            raise InputError(f"data spec {text!r}: unknown kind {kind!r}; {hint} {_FORMS}")
        if not where and kind != "synthetic":
            raise InputError(f"data spec {text!r}: the path is missing, as in {kind}:PATH")
        options: dict[str, int] = {}
        words: dict[str, str] = {}
        worded = _WORDS.get(kind, {})
        for part in filter(None, (query or bare_query).split("&")):
            name, _, value = part.partition("=")
            if value in worded.get(name, ()):
                words[name] = value
            elif name in _OPTIONS[kind] and re.fullmatch(r"[0-9]{1,9}", value):
                options[name] = int(value)
            else:
                known = [f"{option}=NUMBER" for option in _OPTIONS[kind]]
                known += [f"{option}={'|'.join(values)}" for option, values in worded.items()]
                listed = ", ".join(known) or "none"
                raise InputError(f"data spec {text!r}: cannot use the option {part!r}; {kind} takes: {listed}")
        if options.get("size", _SIZES[0]) not in _SIZES:
            raise InputError(f"data spec {text!r}: size {options['size']}, expected {_SIZES[0]} to {_SIZES[-1]} pixels")
        return cls(kind=kind, where=where, options=options, words=words)


def load_dataset(spec: str, *, cache: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Read a data set, or open what an earlier reading left in the cache.

    The first reading decodes every image and keeps the arrays; later ones map them from disk (FER2013 opens in a tenth
    of a second). The cache notices when the source or the reader has changed, and when it was damaged itself.

    Args:
        spec: one of

            - ``fer2013:PATH``: the challenge's CSV, the image folders, a parquet file or a folder of them;
            - ``ckplus:PATH``: the authors' tree or CK+48; ``?fold=K`` (0 to 9) parts it by subject,
              ``?labels=official`` labels it with the seven emotions of CK+ itself, contempt among them;
            - ``folder:PATH``: one folder an expression, in train/, val/ and test/ or flat;
            - ``synthetic``, ``synthetic:COUNT`` or ``synthetic:COUNT@SEED``: generated faces.

            All but fer2013 take ``?size=S``, the width and height of the faces; options are joined by ``&``.
        cache: the folder for decoded arrays; by default `default_cache_folder()`.
        progress: called with (done, total) while decoding.

    Raises:
        InputError: the spec or the data cannot be used as given; the message names the file, and the line or row.
        MissingPackageError: OpenCV (images) or pyarrow (parquet) is not installed.
    """
    parsed = DataSpec.parse(spec)
    dataset = cached(_plan(parsed), folder=cache or default_cache_folder(), progress=progress or no_progress)
    if (fold := parsed.options.get("fold")) is not None:
        from fer_edge.data.ckplus import split_by_subject

        dataset = split_by_subject(dataset, fold=fold)
    return replace(dataset, source=spec)


def ckplus_expressions(spec: DataSpec) -> tuple[str, ...]:
    """What the labels of a ``ckplus`` spec mean."""
    return CKPLUS_EMOTIONS if spec.words.get("labels") == "official" else EXPRESSIONS


def _plan(spec: DataSpec) -> ReadPlan:
    path, size = Path(spec.where).expanduser().resolve(), spec.options.get("size")
    if spec.kind == "fer2013":
        from fer_edge.data import fer2013

        return fer2013.plan(path)
    if spec.kind == "ckplus":
        from fer_edge.data import ckplus

        return ckplus.plan(path, size=size, expressions=ckplus_expressions(spec))
    if spec.kind == "folder":
        from fer_edge.data import class_folders

        return class_folders.plan(path, size=size)
    from fer_edge.data import synthetic

    numbers = re.fullmatch(r"([0-9]{0,9})(?:@([0-9]{1,9}))?", spec.where)
    count = int(numbers[1] or synthetic.DEFAULT_COUNT) if numbers else 0
    if numbers is None or count not in _COUNTS:
        expected = f"synthetic:COUNT@SEED, as in synthetic:700@3, with a count of 1 to {_COUNTS[-1]:,}"
        raise InputError(f"data spec synthetic:{spec.where}: expected {expected}")
    return synthetic.plan(count, seed=int(numbers[2] or 0), size=size or 48)
