"""Data specs, such as ``fer2013:~/data/fer2013.csv``: the table of readers, and the function that opens them all."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from fer_edge.core.errors import DataError
from fer_edge.core.files import default_cache_folder, user_path
from fer_edge.core.types import Progress, no_progress
from fer_edge.data import ckplus, class_folders, fer2013, synthetic
from fer_edge.data.cache import ReadPlan, cached
from fer_edge.data.dataset import Dataset

__all__ = ["READERS", "DataSpec", "Reader", "load_dataset"]

Option: TypeAlias = range | tuple[str, ...]
"""The values of an option: whole numbers in a range, or words."""

_SIZES: Final = range(16, 513)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a kind of data spec is read.

    Attributes:
        plan: inspects the source; called with the path (or, where `path` is False, the text) and the options.
        form: the spec's form, for messages.
        options: the options after ``?``, with their values.
        path: the spec names a path.
    """

    plan: Callable[..., ReadPlan]
    form: str
    options: Mapping[str, Option] = field(default_factory=dict)
    path: bool = True


READERS: Final[Mapping[str, Reader]] = {
    "fer2013": Reader(plan=fer2013.plan, form="fer2013:PATH"),
    "ckplus": Reader(
        plan=ckplus.plan,
        form="ckplus:PATH[?fold=K]",
        options={"size": _SIZES, "fold": range(ckplus.FOLDS), "labels": tuple(ckplus.LABELS)},
    ),
    "folder": Reader(plan=class_folders.plan, form="folder:PATH[?size=S]", options={"size": _SIZES}),
    "synthetic": Reader(plan=synthetic.plan, form="synthetic[:COUNT[@SEED]]", options={"size": _SIZES}, path=False),
}
"""Every reader by the kind of its spec. To add a data set, copy `class_folders.py`, change it, and add a row here."""

_FORMS: Final = ", ".join(reader.form for reader in READERS.values())


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A parsed data spec.

    Attributes:
        kind: a key of `READERS`.
        where: the text between the colon and the question mark: a path, or ``COUNT@SEED``.
        options: the options after the question mark.
    """

    kind: str
    where: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Parse ``KIND:WHERE?OPTION=VALUE&...``.

        Raises:
            DataError: an unknown kind or option, or no path.
        """
        before, _, query = text.partition("?")
        kind, _, where = before.partition(":")
        if kind not in READERS:
            near = difflib.get_close_matches(kind, READERS, n=1)
            hint = f"did you mean {near[0]!r}? There are" if near else "expected"
            raise DataError(f"data spec {text!r}: unknown kind {kind!r}; {hint} {_FORMS}")
        reader = READERS[kind]
        if reader.path and not where:
            raise DataError(f"data spec {text!r}: the path is missing, as in {kind}:PATH")
        options = {}
        for part in filter(None, query.split("&")):
            name, _, value = part.partition("=")
            values = reader.options.get(name, ())
            number = int(value) if isinstance(values, range) and re.fullmatch(r"[0-9]{1,9}", value) else value
            if number not in values:
                known = "; ".join(f"{option}={_shown(values)}" for option, values in reader.options.items()) or "none"
                raise DataError(f"data spec {text!r}: got the option {part!r}, expected for {kind}: {known}")
            options[name] = number
        return cls(kind=kind, where=where, options=options)


def _shown(values: Option) -> str:
    return f"{values[0]} to {values[-1]}" if isinstance(values, range) else " or ".join(values)


def load_dataset(spec: str, *, cache: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Read a data set, or open the decoded copy of an earlier call.

    The first call decodes every image into the cache; later ones map the arrays from disk (0.1 s for FER2013). A
    changed source or reader, or a damaged cache, is noticed and decoded again.

    Args:
        spec: one of

            - ``fer2013:PATH``: the challenge's CSV, the image folders, a parquet file or a folder of them;
            - ``ckplus:PATH``: the authors' tree or CK+48; ``?fold=K`` (0 to 9) splits it by subject,
              ``?labels=official`` uses CK+'s own seven emotions, which include contempt;
            - ``folder:PATH``: one folder per expression, in train/, val/ and test/ or flat;
            - ``synthetic``, ``synthetic:COUNT`` or ``synthetic:COUNT@SEED``: drawn faces.

            All but fer2013 take ``?size=S``, the width and height of the faces; ``&`` joins options.
        cache: the folder for decoded arrays; `default_cache_folder()` by default.
        progress: called while decoding.

    Raises:
        DataError: the spec or the data cannot be used; the message names the file, and the line or row.
        MissingPackageError: OpenCV (images) or pyarrow (parquet) is not installed.

    Example:
        >>> from fer_edge.data import load_dataset
        >>> faces = load_dataset("synthetic:14?size=32")
        >>> faces.split("train").images.shape
        (14, 32, 32)
    """
    parsed = DataSpec.parse(spec)
    reader = READERS[parsed.kind]
    where = user_path(parsed.where).resolve() if reader.path else parsed.where
    plan = reader.plan(where, **parsed.options)
    dataset = cached(
        plan, folder=user_path(cache) if cache else default_cache_folder(), progress=progress or no_progress
    )
    return dataclasses.replace(dataset, source=spec)
