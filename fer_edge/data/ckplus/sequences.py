"""CK+ as it was made to be used: whole sequences, from the neutral face to the peak of the expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.files import default_cache_folder
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Int64, Progress, Uint8, no_progress
from fer_edge.data.cache import ReadPlan, cached
from fer_edge.data.ckplus.folds import FOLDS, fold_roles
from fer_edge.data.ckplus.stills import labelled
from fer_edge.data.ckplus.tree import CkPlusSequence, ckplus_sequences
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["SequenceSet", "load_sequences"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceSet:
    """Labelled sequences of one face each, of different lengths.

    Attributes:
        frames: uint8 (sum of T, S, S) grey, one sequence after the other; may be memory-mapped.
        starts: int64 (N + 1,), sequence i is ``frames[starts[i]:starts[i + 1]]``, neutral first and peak last.
        labels: int64 (N,), index into `expressions`.
        subjects: str (N,).
        expressions: what the labels mean.
        sha256: of the frames, labels and places of the whole set, whatever part of it this is.
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
        """Every sequence brought to `steps` frames.

        Of a longer sequence frames are taken evenly from the first to the last; a shorter one repeats its first frame
        in front, as a window does that is not full.

        Args:
            steps: frames T of a window, at least 2.
            rows: sequences to take; all by default.

        Returns:
            uint8 (N, T, S, S), oldest first, and int64 (N,), how many of the T are real.

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
        """Rows to train, to choose and to report on (``train``, ``val``, ``test``), none of which share a subject.

        The subjects are parted as `split_by_subject` parts those of the stills.

        Raises:
            InputError: fewer subjects than folds, or a fold that is not one of them.
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
    """Read every frame of every sequence that has one of the expressions, or map what an earlier reading left.

    Args:
        path: the authors' tree; CK+48 has peaks alone.
        size: width and height of the faces, 128 by default.
        expressions: what the labels are to mean.
        cache: the folder for decoded arrays; by default `default_cache_folder()`.
        progress: called with (sequences done, total) while decoding.

    Raises:
        InputError: CK+48, or as `ckplus_sequences`, or a face that cannot be found.
    """
    root = path.expanduser().resolve()
    sequences = ckplus_sequences(root)
    if sequences[0].cropped:
        raise InputError(
            f"{root} is CK+48, which holds the last three frames of each sequence; sequences from neutral to the peak "
            "need the authors' tree (cohn-kanade-images/ and Emotion/)"
        )
    side = size or sequences[0].side
    plan = ReadPlan(
        name="ckplus-sequences",
        root=root,
        files=[file for sequence in sequences for file in sequence.files],
        version=_VERSION,
        options=f"size={side},labels={'+'.join(expressions)}",
        read=partial(_read, root, sequences, side, expressions),
    )
    held = cached(plan, folder=cache or default_cache_folder(), progress=progress or no_progress)
    return _sequence_set(held.splits["all"])


def _read(
    path: Path, sequences: Sequence[CkPlusSequence], side: int, expressions: tuple[str, ...], progress: Progress
) -> Dataset:
    """As stills whose `rows` say which sequence a frame belongs to, which is what the cache keeps."""
    used = labelled(path, sequences, expressions)
    faces, labels, subjects, rows = [], [], [], []
    for done, (sequence, expression) in enumerate(used):
        progress("reading images", done, len(used))
        count = len(sequence.frames)
        faces.append(sequence.read_faces(size=side))
        labels += [expressions.index(expression)] * count
        subjects += [sequence.subject] * count
        rows += [done] * count
    progress("reading images", len(used), len(used))
    frames = StillSet(
        name="all",
        images=np.concatenate(faces),
        labels=np.array(labels, np.int64),
        rows=np.array(rows, np.int64),
        groups=np.array(subjects),
        expressions=expressions,
    )
    return Dataset(name="ckplus", source=f"ckplus:{path}", layout="cohn-kanade", splits={"all": frames})


def _sequence_set(frames: StillSet) -> SequenceSet:
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
