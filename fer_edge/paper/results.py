"""One finished training of the study with its predictions, as an .npz file.

Every figure, interval and test of the study is computed from these files, without another training.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.files import write_atomic
from fer_edge.core.json import encode, expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Array, Float32, Int64

__all__ = ["RunResult", "SplitPredictions", "StudyProgress", "run_path"]

_RUN_SCHEMA: Final = 3
"""Runs of schema 1 were trained without the moving average of the weights."""

_SPLITS: Final = ("choose", "report")
_ARRAYS: Final = ("labels", "probabilities", "leaked")


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitPredictions:
    """Predictions of one trained system for every row of one split, in the split's order.

    Attributes:
        split: the split's name, for example ``"PublicTest"``.
        labels: int64 (N,), index into `classes`; other integer types are converted.
        probabilities: float32 (N, C), rows sum to 1; other float types are converted.
        leaked: bool (N,), True where the same pixels are in the training split.
        classes: class names in output order.
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
        seed: of weights, order and augmentation.
        parameters: of the layers that predict.
        macs: multiply-accumulates for one face; None where unknown.
        choose: predictions on the split for choosing.
        report: predictions on the split for reporting; None where there is none.
        settings: recipe, data hashes, versions: plain JSON values.
    """

    system: str
    seed: int
    epochs: int
    seconds: float
    parameters: int
    macs: int | None
    choose: SplitPredictions
    report: SplitPredictions | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(bool(self.system), "system", self.system, "a name")
        for name in ("seed", "epochs", "parameters", "seconds"):
            expect(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")

    @property
    def reported(self) -> SplitPredictions:
        """The predictions that systems are compared by: those on `report`, or else on `choose`."""
        return self.report or self.choose

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one compressed ``.npz`` of arrays, with everything else as JSON in it; atomically.

        Raises:
            OutputError: it cannot be written; an earlier file is unchanged.
        """
        facts: dict[str, Any] = {"schema": _RUN_SCHEMA}
        arrays: dict[str, Array] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, SplitPredictions):
                arrays.update({f"{name}_{each}": getattr(value, each) for each in _ARRAYS})
                value = {"split": value.split, "dataset": value.dataset, "classes": value.classes}
            facts[name] = encode(value)
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
        arrays["facts"] = np.frombuffer(text.encode(), dtype=np.uint8)
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        write_atomic(Path(path), held.getvalue())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunResult:
        """Read a run's file; pickled objects are refused.

        Raises:
            InputError: the file is missing, damaged, of another schema, or no run.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            facts = json.loads(arrays.pop("facts").tobytes().decode())
            schema = facts.pop("schema")
            expect(schema == _RUN_SCHEMA, "schema", schema, str(_RUN_SCHEMA))
            for name in _SPLITS:
                if facts[name] is not None:
                    held_arrays = {each: arrays[f"{name}_{each}"] for each in _ARRAYS}
                    facts[name] = SplitPredictions(**facts[name], **held_arrays)
            return cls(**facts)
        except OSError as error:
            raise InputError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
        except (InputError, KeyError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{os.fspath(path)}: not a run of this version's study ({error}); remove it, and the study trains it "
                "again"
            ) from error


def run_path(folder: Path, *, system: str, seed: int) -> Path:
    """Return the file of a run in a study's folder: ``SYSTEM-seedN.npz``."""
    return folder / f"{system}-seed{seed}.npz"


class StudyProgress(Protocol):
    """Receives the progress of a study."""

    def planned(self, *, finished: int, total: int) -> None:
        """Called once: so many runs of the plan are on disk."""

    def step(self, what: str, done: int, total: int) -> None:
        """Called during trainings; `what` is ``"RUN: STAGE"``."""

    def finished(self, run: str, result: RunResult) -> None:
        """Called when a run has ended and is on disk."""
