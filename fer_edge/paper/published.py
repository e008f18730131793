"""The paper's own figures, and why ours differ from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["PAPER", "PUBLISHED", "WHY_THEY_DIFFER", "PaperFigure", "published"]

PAPER: Final = (
    "Singh, Kumar, Khan, Jayanthiladevi, Agarwal 2025, An Attention-Based Model for Recognition of Facial Expressions "
    "Using CNN-BiLSTM, Polytechnic Journal 15(1), doi 10.59341/2707-7799.1849"
)

WHY_THEY_DIFFER: Final = (
    "FER2013's labels are noisy (people agree with them on about 65 of 100 images: Goodfellow et al. 2013, arXiv "
    "1307.0414), which puts the paper's 97 % out of reach of any protocol that keeps its test images apart. "
    "The paper states neither its splits nor its protocol, and its own accuracies of one and the same complete network "
    "on FER2013 contradict each other: 81.42 % in Table 1, 97.34 % in Table 2, 97.76 % in Table 3."
)
"""Two sentences."""


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """What one row of one of the paper's tables says; fractions, None where the table does not say.

    Tables 1 and 3 name FER2013; Table 2 is headed "FER dataset", which the paper uses for FER2013.
    """

    table: int
    dataset: str
    accuracy: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


def _rows(table: int, rows: dict[str, tuple[float, float, float, float]]) -> Iterable[tuple[str, PaperFigure]]:
    """In the paper's order of columns: accuracy, precision, F1, recall; per cent."""
    for system, (accuracy, precision, f1, recall) in rows.items():
        yield (
            system,
            PaperFigure(
                table=table,
                dataset="fer2013",
                accuracy=round(accuracy / 100, 4),
                precision=round(precision / 100, 4),
                recall=round(recall / 100, 4),
                f1=round(f1 / 100, 4),
            ),
        )


def _ablation(system: str, fer2013: float, ckplus: float) -> Iterable[tuple[str, PaperFigure]]:
    for dataset, rate in (("fer2013", fer2013), ("ckplus", ckplus)):
        yield system, PaperFigure(table=1, dataset=dataset, accuracy=round(rate / 100, 4))


PUBLISHED: Final = (
    *_ablation("no-features", 61.20, 73.50),
    *_ablation("no-attention", 72.85, 76.94),
    *_ablation("no-reconstruction", 75.34, 81.23),
    *_ablation("complete", 81.42, 99.21),
    *_rows(
        2,
        {
            "cnn-lstm": (93.14, 93.52, 93.34, 93.21),
            "dscnn-lstm": (93.67, 93.98, 93.82, 94.12),
            "cnn-bilstm": (95.22, 95.35, 95.40, 95.58),
            "acnn-lstm": (92.98, 92.64, 92.82, 92.55),
            "complete": (97.34, 96.84, 96.96, 97.21),
        },
    ),
    *_rows(
        3,
        {
            "cnn-lstm": (92.47, 91.84, 93.12, 92.68),
            "cnn-svm": (91.95, 92.16, 90.78, 91.22),
            "cnn-bilstm": (94.73, 94.89, 95.02, 94.68),
            "acnn-lstm": (90.81, 90.54, 90.14, 90.32),
            "complete": (97.76, 98.42, 98.64, 97.94),
        },
    ),
)
"""(system, figure) of every row of the paper's tables."""


def published(system: str, *, dataset: str = "fer2013") -> tuple[PaperFigure, ...]:
    """Every figure that the paper gives for a system on a data set; empty where it has none."""
    return tuple(figure for name, figure in PUBLISHED if name == system and figure.dataset == dataset)
