"""The seven expressions and the label orders of the data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from fer_edge.core.errors import InputError

__all__ = [
    "CKPLUS_CODES",
    "CKPLUS_EMOTIONS",
    "CROWD_LABELS",
    "EXPRESSIONS",
    "FER2013_FREQUENCIES",
    "FER2013_ORDER",
    "FERPLUS_VOTES",
    "NOT_JUDGEABLE",
    "READINGS",
    "Reading",
    "canonical_expression",
    "expression_index",
]

EXPRESSIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Output order of every model, metric and table."""

FER2013_ORDER: Final = EXPRESSIONS
"""FER2013's `emotion` column 0..6 (Goodfellow et al. 2013, arXiv 1307.0414); the same order."""

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

CKPLUS_CODES: Final[Mapping[int, str]] = {
    0: "neutral", 1: "angry", 2: "contempt", 3: "disgust", 4: "fear", 5: "happy", 6: "sad", 7: "surprise",
}  # fmt: skip
"""CK+ emotion codes (Lucey et al. 2010); contempt is not one of the seven expressions."""

CKPLUS_EMOTIONS: Final = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
"""CK+'s own seven emotions, with contempt and without neutral."""

FERPLUS_VOTES: Final = (
    "neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", "unknown", "not-a-face",
)  # fmt: skip
"""Columns of the FER+ crowd votes (Barsoum et al. 2016, arXiv 1608.01041)."""

_SYNONYMS: Final[Mapping[str, str]] = {
    "anger": "angry",
    "afraid": "fear",
    "fearful": "fear",
    "disgusted": "disgust",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "surprize": "surprise",
}


def canonical_expression(name: str) -> str:
    """Map a synonym (``"Anger"``, ``"happiness"``) to one of `EXPRESSIONS` or ``"contempt"``.

    Raises:
        InputError: an unknown expression.
    """
    word = name.strip().lower()
    word = _SYNONYMS.get(word, word)
    if word not in EXPRESSIONS and word != "contempt":
        raise InputError(f"unknown expression {name!r}; expected one of {', '.join(EXPRESSIONS)} (or contempt)")
    return word


def expression_index(name: str) -> int:
    """Return the index of an expression or synonym in `EXPRESSIONS`.

    Raises:
        InputError: not one of the seven.
    """
    word = canonical_expression(name)
    if word == "contempt":
        raise InputError("contempt is not one of the seven expressions; leave it out or map it yourself")
    return EXPRESSIONS.index(word)
