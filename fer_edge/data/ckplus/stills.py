"""CK+ as stills: the last three frames of every labelled sequence, and its first as a neutral face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.ckplus.tree import PEAK_FRAMES, CkPlusSequence, ckplus_sequences
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["labelled", "plan"]

_VERSION = 1


def plan(path: Path, *, size: int | None = None, expressions: tuple[str, ...] = EXPRESSIONS) -> ReadPlan:
    """Look at CK+ and plan how to read its stills: one split, with the subjects in `groups`.

    Args:
        path: as in `ckplus_sequences`.
        size: width and height of the faces; by default 48 for CK+48 and 128 for the authors' tree.
        expressions: what the labels are to mean; sequences of other expressions are left out, and neutral faces where
            they are none of these.

    Raises:
        InputError: as `ckplus_sequences`.
    """
    sequences = ckplus_sequences(path)
    side = size or sequences[0].side
    named = "" if expressions == EXPRESSIONS else f",labels={'+'.join(expressions)}"
    return ReadPlan(
        name="ckplus",
        root=path,
        files=[file for sequence in sequences for file in sequence.files],
        version=_VERSION,
        options=f"size={side}{named}",
        read=partial(_read, path, sequences, side, expressions),
    )


def labelled(
    path: Path, sequences: Sequence[CkPlusSequence], expressions: tuple[str, ...]
) -> list[tuple[CkPlusSequence, str]]:
    """The sequences of one of these expressions, each with it.

    Raises:
        InputError: there is none.
    """
    used = [(each, each.expression) for each in sequences if each.expression and each.expression in expressions]
    if not used:
        raise InputError(f"{path} holds no sequence labelled with one of {', '.join(expressions)}")
    return used


def _read(
    path: Path, sequences: Sequence[CkPlusSequence], side: int, expressions: tuple[str, ...], progress: Progress
) -> Dataset:
    used = labelled(path, sequences, expressions)
    faces, labels, subjects = [], [], []
    for done, (sequence, expression) in enumerate(used):
        progress("reading images", done, len(used))
        frames = list(range(len(sequence.frames)))
        shown = [expression] * len(frames)
        if not sequence.cropped:
            frames, shown = frames[-PEAK_FRAMES:], shown[-PEAK_FRAMES:]
            if "neutral" in expressions:
                frames, shown = [0, *frames], ["neutral", *shown]
        faces.append(sequence.read_faces(frames, size=side))
        labels += [expressions.index(each) for each in shown]
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
        source=f"ckplus:{path}",
        layout="CK+48" if used[0][0].cropped else "cohn-kanade",
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
    missing = " This shape holds no neutral faces." if sequences[0].cropped and "neutral" in expressions else ""
    return (
        f"Of {len(sequences)} sequences {left_out} are left out.{missing} "
        "Add ?fold=0 (to 9) to the spec for train, val and test without a common subject."
    )
