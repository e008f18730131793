"""One finished training of the paper study, as a file.

A run keeps its predictions, so that every figure, interval and test can be computed again without training anything.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.files import write_atomic
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Array, Float32, Int64

__all__ = ["RUN_SCHEMA", "RunResult", "SplitPredictions", "run_path"]

RUN_SCHEMA: Final = 1
"""The one schema of a run's file that this version writes and reads."""

_PARTS: Final = ("choose", "report")
_ARRAYS: Final = ("labels", "probabilities", "leaked")


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitPredictions:
    """What one trained system said about every row of one split, in the split's own order.

    Attributes:
        split: the split's name, for example ``"PublicTest"``.
        labels: int64 (N,), index into `classes`.
        probabilities: float32 (N, C), rows sum to 1.
        leaked: bool (N,), True where the same pixels also stand in the training split.
        dataset: the data set's name.
        classes: class names in output order.

    Other integer and float types are converted.
    """

    split: str
    labels: Int64
    probabilities: Float32
    leaked: NDArray[np.bool_]
    dataset: str = "fer2013"
    classes: tuple[str, ...] = EXPRESSIONS

    def __post_init__(self) -> None:
        labels, leaked = np.asarray(self.labels), np.asarray(self.leaked)
        scores = np.asarray(self.probabilities)
        rows, columns = labels.size, len(self.classes)
        expect(labels.ndim == 1 and rows >= 1, "labels", labels.shape, "(N,) with N >= 1")
        expect(np.issubdtype(labels.dtype, np.integer), "labels", str(labels.dtype), "integers")
        inside = labels.min() >= 0 and labels.max() < columns
        expect(bool(inside), "labels", f"{labels.min()}..{labels.max()}", f"0..{columns - 1}")
        expect(scores.shape == (rows, columns), "probabilities", scores.shape, str((rows, columns)))
        sums = np.isfinite(scores).all() and scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3)
        expect(bool(sums), "probabilities", "other rows", "finite rows that are not negative and sum to 1")
        expect(leaked.shape == (rows,) and leaked.dtype == np.bool_, "leaked", leaked.shape, f"bool ({rows},)")
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "probabilities", scores.astype(np.float32))
        object.__setattr__(self, "leaked", leaked)
        object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def predicted(self) -> Int64:
        """int64 (N,): the most probable class of each row."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """bool (N,): the rows whose most probable class is their label."""
        return np.asarray(self.predicted == self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """One system trained once.

    Attributes:
        system: the system's name in the study.
        seed: of weights, order and augmentation.
        epochs: trained for.
        best_epoch: the epoch whose weights were kept, chosen on `choose`; None where nothing was chosen.
        seconds: the training took.
        parameters: of what predicts.
        macs: multiply-accumulates for one face; None where they were not counted.
        choose: the predictions on the split that everything is chosen on.
        report: those on the split for reporting only; None where it was not looked at.
        settings: what else this run is to be known by (recipe, input size, versions, hashes): plain JSON values.
    """

    system: str
    seed: int
    epochs: int
    best_epoch: int | None
    seconds: float
    parameters: int
    macs: int | None
    choose: SplitPredictions
    report: SplitPredictions | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(bool(self.system), "system", self.system, "a name")
        for name in ("seed", "epochs", "parameters"):
            expect(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        expect(self.seconds >= 0, "seconds", self.seconds, "0 or more")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the run as one compressed ``.npz``: arrays, and the rest as JSON; atomically.

        Raises:
            OutputError: it cannot be written; what stood there is untouched.
        """
        facts: dict[str, Any] = {"schema": RUN_SCHEMA}
        arrays: dict[str, Array] = {}
        for name in self.__dataclass_fields__:
            if name not in _PARTS:
                facts[name] = encode(getattr(self, name))
        for part in _PARTS:
            split: SplitPredictions | None = getattr(self, part)
            facts[part] = None
            if split is not None:
                facts[part] = {"split": split.split, "dataset": split.dataset, "classes": list(split.classes)}
                arrays.update({f"{part}_{name}": getattr(split, name) for name in _ARRAYS})
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
        arrays["facts"] = np.frombuffer(text.encode(), dtype=np.uint8)
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        write_atomic(Path(path), held.getvalue())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunResult:
        """Read a run's file. Nothing in it is executed (no pickle).

        Raises:
            InputError: the file is missing, broken, of another schema, or holds no run.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            facts = json.loads(arrays.pop("facts").tobytes().decode())
            return _run(facts, arrays)
        except OSError as error:
            raise InputError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
        except (InputError, KeyError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{os.fspath(path)} is no run of the paper study: {error}. Remove it, and the study trains it again."
            ) from error


def run_path(folder: Path, *, system: str, seed: int) -> Path:
    """Where the run of one system and seed lies in a study's folder: ``SYSTEM-seedN.npz``."""
    return folder / f"{system}-seed{seed}.npz"


@dataclass(frozen=True, kw_only=True)
class _SplitFacts:
    split: str
    dataset: str
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _RunFacts:
    schema: int
    system: str
    seed: int
    epochs: int
    best_epoch: int | None
    seconds: float
    parameters: int
    macs: int | None
    choose: _SplitFacts
    report: _SplitFacts | None
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        expect(self.schema == RUN_SCHEMA, "schema", self.schema, str(RUN_SCHEMA))


def _run(facts: Any, arrays: Mapping[str, Array]) -> RunResult:
    known = decode(_RunFacts, facts)
    choose = _split("choose", known.choose, arrays)
    report = None if known.report is None else _split("report", known.report, arrays)
    return RunResult(
        choose=choose,
        report=report,
        **{name: getattr(known, name) for name in known.__dataclass_fields__ if name not in (*_PARTS, "schema")},
    )


def _split(part: str, facts: _SplitFacts, arrays: Mapping[str, Array]) -> SplitPredictions:
    held = {name: arrays[f"{part}_{name}"] for name in _ARRAYS}
    return SplitPredictions(split=facts.split, dataset=facts.dataset, classes=facts.classes, **held)
