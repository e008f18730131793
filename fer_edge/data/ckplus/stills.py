"""CK+ as stills: the last three frames of every labelled sequence, and its first as a neutral face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.labels import CKPLUS_EMOTIONS, EXPRESSIONS
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.ckplus.folds import split_by_subject
from fer_edge.data.ckplus.tree import PEAK_FRAMES, CkPlusSequence, ckplus_sequences
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["LABELS", "plan", "read_frames"]

LABELS: Final[Mapping[str, tuple[str, ...]]] = {"seven": EXPRESSIONS, "official": CKPLUS_EMOTIONS}
"""The label names by the option ``labels`` of a data spec."""

_VERSION = 1


def plan(path: Path, *, size: int | None = None, labels: str = "seven", fold: int | None = None) -> ReadPlan:
    """Inspect CK+ and plan how to read its stills: one split, with the subjects in `groups`.

    Args:
        path: as in `ckplus_sequences`.
        size: width and height of the faces; by default 48 for CK+48 and 128 for the authors' tree.
        labels: a key of `LABELS`; sequences of other expressions are left out.
        fold: split into train, val and test by subject (`split_by_subject`).

    Raises:
        DataError: as `ckplus_sequences`.
    """
    sequences = ckplus_sequences(path)
    side, expressions = size or sequences[0].side, LABELS[labels]
    named = "" if expressions == EXPRESSIONS else f",labels={'+'.join(expressions)}"
    return ReadPlan(
        name="ckplus",
        root=path,
        files=[file for sequence in sequences for file in sequence.files],
        version=_VERSION,
        options=f"size={side}{named}",
        read=partial(_read, path, sequences, side, expressions),
        select=None if fold is None else partial(split_by_subject, fold=fold),
    )


def _read(
    path: Path, sequences: Sequence[CkPlusSequence], side: int, expressions: tuple[str, ...], progress: Progress
) -> Dataset:
    def chosen(sequence: CkPlusSequence) -> dict[int, str]:
        frames = range(len(sequence.frames))
        shown = dict.fromkeys(frames if sequence.cropped else frames[-PEAK_FRAMES:], str(sequence.expression))
        return shown if sequence.cropped or "neutral" not in expressions else {0: "neutral", **shown}

    stills = read_frames(path, sequences, side, expressions, progress, chosen=chosen)
    return Dataset(
        name="ckplus",
        layout="CK+48" if sequences[0].cropped else "cohn-kanade",
        splits={"all": stills},
        roles={"report": "all"},
        note=_note(sequences, expressions),
    )


def read_frames(
    path: Path,
    sequences: Sequence[CkPlusSequence],
    side: int,
    expressions: tuple[str, ...],
    progress: Progress,
    *,
    chosen: Callable[[CkPlusSequence], Mapping[int, str]] | None = None,
) -> StillSet:
    """Read frames of the sequences that have one of `expressions`.

    Args:
        sequences: labelled or not.
        side: width and height of the faces.
        chosen: the positions to read of a sequence, with their expressions. By default all frames, with the sequence's
            expression, and the sequence's number as the row of each frame.

    Raises:
        DataError: no sequence has one of the expressions, or a frame cannot be read.
    """
    used = [each for each in sequences if each.expression in expressions]
    if not used:
        raise DataError(f"{path} holds no sequence labelled with one of {', '.join(expressions)}")
    faces, labels, subjects, rows = [], [], [], []
    for done, sequence in enumerate(used):
        progress("reading images", done, len(used))
        every = dict.fromkeys(range(len(sequence.frames)), str(sequence.expression))
        frames = every if chosen is None else chosen(sequence)
        faces.append(sequence.read_faces(list(frames), size=side))
        labels += [expressions.index(expression) for expression in frames.values()]
        subjects += [sequence.subject] * len(frames)
        rows += [done] * len(frames)
    progress("reading images", len(used), len(used))
    return StillSet(
        name="all",
        images=np.concatenate(faces),
        labels=np.array(labels, np.int64),
        rows=np.arange(len(labels)) if chosen else np.array(rows, np.int64),
        groups=np.array(subjects),
        expressions=expressions,
    )


def _note(sequences: Sequence[CkPlusSequence], expressions: tuple[str, ...]) -> str:
    unlabelled = sum(sequence.expression is None for sequence in sequences)
    contempt = sum(sequence.expression == "contempt" for sequence in sequences)
    left_out = f"{unlabelled} without a label"
    if "contempt" not in expressions:
        left_out += f" and {contempt} of contempt"
    missing = " This layout holds no neutral faces." if sequences[0].cropped and "neutral" in expressions else ""
    return (
        f"Of {len(sequences)} sequences {left_out} are left out.{missing} "
        "Add ?fold=0 (to 9) to the spec for train, val and test without a common subject."
    )
