"""The seven expressions, and the labels of each head; `label_sets` has those of the data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
    "CROWD_LABELS",
    "EXPRESSIONS",
    "FER2013_FREQUENCIES",
    "NOT_JUDGEABLE",
    "READINGS",
    "Reading",
]

EXPRESSIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Output order of every model, metric and table."""

FER2013_FREQUENCIES: Final[Mapping[str, float]] = {
    name: count / 28_709
    for name, count in zip(EXPRESSIONS, (3_995, 436, 4_097, 7_215, 4_830, 3_171, 4_965), strict=True)
}
"""Share of each label among FER2013's Training rows."""

NOT_JUDGEABLE: Final = "not judgeable"
"""Eighth output of the head `crowd`: the face cannot be judged, or there is none."""

CROWD_LABELS: Final = (*EXPRESSIONS, NOT_JUDGEABLE)
"""Output order of the head `crowd`."""

Reading: TypeAlias = Literal["crowd", "fer2013"]
"""Whose labels a head predicts: the FER+ crowd's, or FER2013's own."""

READINGS: Final[tuple[Reading, ...]] = ("crowd", "fer2013")
