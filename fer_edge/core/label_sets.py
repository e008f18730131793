"""The label orders and names of the data sets, which no runtime reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS

__all__ = [
    "CKPLUS_CODES",
    "CKPLUS_EMOTIONS",
    "FER2013_ORDER",
    "FERPLUS_VOTES",
    "canonical_expression",
    "expression_index",
]

FER2013_ORDER: Final = EXPRESSIONS
"""FER2013's `emotion` column 0..6 (Goodfellow et al. 2013, arXiv 1307.0414); the same order."""

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
