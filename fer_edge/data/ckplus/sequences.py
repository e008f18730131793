"""CK+ as whole sequences, from the neutral face to the peak of the expression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import DataError, InputError
from fer_edge.core.files import default_cache_folder, user_path
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Int64, Progress, Uint8, no_progress
from fer_edge.data.cache import ReadPlan, cached
from fer_edge.data.ckplus.folds import FOLDS, fold_roles
from fer_edge.data.ckplus.stills import read_frames
from fer_edge.data.ckplus.tree import ckplus_sequences
from fer_edge.data.dataset import Dataset

__all__ = ["SequenceSet", "load_sequences"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceSet:
    """Labelled sequences of one face each, of different lengths.

    Attributes:
        frames: uint8 (sum of T, S, S) grey, all sequences concatenated; may be memory-mapped.
        starts: int64 (N + 1,), sequence i is ``frames[starts[i]:starts[i + 1]]``, from neutral to peak.
        labels: int64 (N,), index into `expressions`.
        subjects: str (N,).
        sha256: hash of the whole set.
    """

    frames: Uint8
    starts: Int64
    labels: Int64
    subjects: NDArray[np.str_]
    expressions: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)

    def windows(self, steps: int, *, rows: Int64 | None = None) -> tuple[Uint8, Int64]:
        """Resample every sequence to `steps` frames.

        A longer sequence is sampled evenly from its first to its last frame; a shorter one is preceded by copies of its
        first frame, like a window that is not full.

        Args:
            steps: frames T of a window, at least 2.
            rows: the sequences; all by default.

        Returns:
            uint8 (N, T, S, S), oldest first, and int64 (N,), the number of real frames.

        Raises:
            InputError: fewer than two steps.
        """
        if steps < 2:
            raise InputError(f"steps: got {steps}, expected at least 2, the neutral frame and the peak")
        chosen = np.arange(len(self)) if rows is None else rows
        found = np.empty((len(chosen), steps, *self.frames.shape[1:]), np.uint8)
        lengths = np.empty(len(chosen), np.int64)
        for place, row in enumerate(chosen):
            first, stop = int(self.starts[row]), int(self.starts[row + 1])
            lengths[place] = min(stop - first, steps)
            taken = np.linspace(first, stop - 1, int(lengths[place])).round().astype(np.int64)
            found[place] = self.frames[np.concatenate((np.full(steps - len(taken), first), taken))]
        return found, lengths

    def fold(self, fold: int, *, folds: int = FOLDS) -> dict[str, Int64]:
        """Return the rows of ``train``, ``val`` and ``test``, split by subject as `split_by_subject` does.

        Raises:
            InputError: fewer subjects than folds, or `fold` is out of range.
        """
        roles = fold_roles(self.subjects, fold=fold, folds=folds)
        return {name: np.flatnonzero(mask) for name, mask in roles.items()}


def load_sequences(
    path: Path,
    *,
    size: int | None = None,
    expressions: tuple[str, ...] = EXPRESSIONS,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SequenceSet:
    """Read every frame of every sequence that has one of the expressions, or open the cache of an earlier call.

    Args:
        path: the authors' tree; CK+48 holds only peaks.
        size: width and height of the faces, 128 by default.
        cache: the folder for decoded arrays; `default_cache_folder()` by default.

    Raises:
        DataError: CK+48, or as `ckplus_sequences`, or no face is found.
    """
    root = user_path(path).resolve()
    sequences = ckplus_sequences(root)
    if sequences[0].cropped:
        raise DataError(
            f"{root} is CK+48, which holds the last three frames of each sequence; sequences from neutral to the peak "
            "need the authors' tree (cohn-kanade-images/ and Emotion/)"
        )
    side = size or sequences[0].side

    def read(progress: Progress) -> Dataset:
        frames = read_frames(root, sequences, side, expressions, progress)
        return Dataset(name="ckplus", layout="cohn-kanade", splits={"all": frames})

    plan = ReadPlan(
        name="ckplus-sequences",
        root=root,
        files=[file for sequence in sequences for file in sequence.files],
        version=_VERSION,
        options=f"size={side},labels={'+'.join(expressions)}",
        read=read,
    )
    held = cached(plan, folder=user_path(cache) if cache else default_cache_folder(), progress=progress or no_progress)
    frames = held.splits["all"]
    assert frames.groups is not None
    first = np.flatnonzero(np.diff(frames.rows, prepend=-1))
    return SequenceSet(
        frames=frames.images,
        starts=np.append(first, len(frames)).astype(np.int64),
        labels=frames.labels[first],
        subjects=frames.groups[first],
        expressions=frames.expressions,
        sha256=frames.sha256,
    )
