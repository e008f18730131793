"""CK+ as stills: the last three frames of every labelled sequence, and its first as a neutral face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import CKPLUS_EMOTIONS
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.ckplus.folds import split_by_subject
from fer_edge.data.ckplus.tree import PEAK_FRAMES, CkPlusSequence, ckplus_sequences
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["LABELS", "plan"]

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
    used = [each for each in sequences if each.expression in expressions]
    if not used:
        raise DataError(f"{path} holds no sequence labelled with one of {', '.join(expressions)}")
    faces, labels, subjects = [], [], []
    for done, sequence in enumerate(used):
        progress("reading images", done, len(used))
        positions = range(len(sequence.frames))
        frames = dict.fromkeys(positions if sequence.cropped else positions[-PEAK_FRAMES:], str(sequence.expression))
        if not sequence.cropped and "neutral" in expressions:
            frames = {0: "neutral", **frames}
        faces.append(sequence.read_faces(list(frames), size=side))
        labels += [expressions.index(expression) for expression in frames.values()]
        subjects += [sequence.subject] * len(frames)
    progress("reading images", len(used), len(used))
    stills = StillSet(
        name="all",
        images=np.concatenate(faces),
        labels=np.array(labels, np.int64),
        rows=np.arange(len(labels)),
        groups=np.array(subjects),
        expressions=expressions,
    )
    return Dataset(
        name="ckplus",
        layout="CK+48" if sequences[0].cropped else "cohn-kanade",
        splits={"all": stills},
        roles={"report": "all"},
        note=_note(sequences, expressions),
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
