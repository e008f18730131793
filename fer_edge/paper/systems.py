"""The systems that the study trains, and the figures that the paper gives for them.

The complete system is the deployed network on one still, whose sequence is the region tokens of the face. An ablation
is that network without one of its parts; a baseline has the same convolutions, tokens and recurrent widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.errors import InputError

__all__ = [
    "COMPLETE",
    "PAPER",
    "SYSTEMS",
    "WHY_THEY_DIFFER",
    "Group",
    "PaperFigure",
    "System",
    "chosen_systems",
    "published",
]

COMPLETE: Final = "complete"
"""The system that all others are compared with."""

Group = Literal["tables", "beyond", "lstm", "size"]
"""Tables 1 to 3; ablations beyond the paper; the role of LSTM parameters; the paper's input size."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of a table.

    Attributes:
        name: in files and on the command line.
        group: its part of the study.
        tables: the paper's tables that contain it.
        features: source of the region tokens: plain convolutions, depthwise separable ones (DSCNN), or the raw pixels
            of each region (no feature extraction).
        recurrence: over the tokens; ``"none"`` averages them (CNN-SVM).
        layers: recurrent layers.
        attention: point multiplication over the recurrent states (``"states"``), over the tokens before the
            recurrence (``"tokens"``, the attention CNN), or none.
        reduction: LDA after the context.
        reconstruction: the DenseNet block after it.
        classifier: softmax, or a support vector machine on the context.
        centre_loss: train with the centre loss.
        median: aperture of the median filter; 0 for none.
        normalisation: ``"gcn"``, or ``"scale"`` for none.
        hidden: recurrent width per direction; None for the recipe's.
        token_grid: side of the grid of tokens; None for the recipe's.
        input_size: pixels; None for the recipe's.
    """

    name: str
    title: str
    group: Group
    tables: tuple[int, ...] = ()
    features: Literal["cnn", "separable", "patches"] = "cnn"
    recurrence: Literal["bilstm", "lstm", "none"] = "bilstm"
    layers: int = 1
    attention: Literal["states", "tokens", "none"] = "states"
    reduction: bool = True
    reconstruction: bool = True
    classifier: Literal["softmax", "svm"] = "softmax"
    centre_loss: bool = True
    median: Literal[0, 3] = 3
    normalisation: Literal["gcn", "scale"] = "gcn"
    hidden: int | None = None
    token_grid: int | None = None
    input_size: int | None = None

    @property
    def two_stages(self) -> bool:
        """Whether a second stage trains layers after the context, which is then fixed."""
        return self.reduction or self.reconstruction


_COMPLETE: Final = System(name="complete", title="Proposed (complete)", group="tables", tables=(1, 2, 3))


def _changed(name: str, title: str, group: Group, tables: tuple[int, ...] = (), **parts: object) -> System:
    return dataclasses.replace(_COMPLETE, name=name, title=title, group=group, tables=tables, **parts)  # type: ignore[arg-type]


def _baseline(name: str, title: str, tables: tuple[int, ...], **parts: object) -> System:
    plain = {"attention": "none", "reduction": False, "reconstruction": False, "centre_loss": False}
    return _changed(name, title, "tables", tables, **{**plain, **parts})


_ALL: Final = (
    _COMPLETE,
    _changed("no-features", "No feature extraction", "tables", (1,), features="patches"),
    _changed("no-attention", "No attention", "tables", (1,), attention="none"),
    _changed("no-reconstruction", "No reconstruction", "tables", (1,), reconstruction=False),
    _baseline("cnn-lstm", "CNN-LSTM", (2, 3), recurrence="lstm"),
    _baseline("dscnn-lstm", "DSCNN-LSTM", (2,), recurrence="lstm", features="separable"),
    _baseline("cnn-bilstm", "CNN-BiLSTM", (2, 3)),
    _baseline("acnn-lstm", "ACNN-LSTM", (2, 3), recurrence="lstm", attention="tokens"),
    _baseline("cnn-svm", "CNN-SVM", (3,), recurrence="none", classifier="svm"),
    _changed("no-lda", "No LDA", "beyond", reduction=False),
    _changed("no-centre-loss", "No centre loss", "beyond", centre_loss=False),
    _changed("no-median", "No median filter", "beyond", median=0),
    _changed("no-gcn", "No contrast normalisation", "beyond", normalisation="scale"),
    _changed("no-preprocessing", "Neither median nor normalisation", "beyond", median=0, normalisation="scale"),
    _changed("hidden-16", "Hidden width 16", "lstm", hidden=16),
    _changed("hidden-32", "Hidden width 32", "lstm", hidden=32),
    _changed("hidden-128", "Hidden width 128", "lstm", hidden=128),
    _changed("layers-2", "Two layers", "lstm", layers=2),
    _changed("one-direction", "One direction", "lstm", recurrence="lstm"),
    _changed("tokens-1", "1 region token", "lstm", token_grid=1),
    _changed("tokens-4", "4 region tokens", "lstm", token_grid=2),
    _changed("tokens-36", "36 region tokens", "lstm", token_grid=6),
    _changed("complete-128", "Proposed, 128x128", "size", input_size=128, token_grid=4),
)

SYSTEMS: Final[Mapping[str, System]] = {system.name: system for system in _ALL}
"""Every system by name, in the order of the tables."""


def chosen_systems(names: Iterable[str]) -> tuple[System, ...]:
    """Return systems by name or by group (``"tables"``, ``"lstm"``), in the order of the tables.

    Raises:
        InputError: an unknown name.
    """
    wanted: dict[str, System] = {}
    for name in names:
        found = [system for system in _ALL if name in (system.name, system.group)]
        if not found:
            groups = dict.fromkeys(system.group for system in _ALL)
            raise InputError(f"system: got {name!r}, expected one of {', '.join(SYSTEMS)}, or {', '.join(groups)}")
        wanted.update({system.name: system for system in found})
    return tuple(system for system in _ALL if system.name in wanted)


PAPER: Final = (
    "Singh, Kumar, Khan, Jayanthiladevi, Agarwal 2025, An Attention-Based Model for Recognition of Facial Expressions "
    "Using CNN-BiLSTM, Polytechnic Journal 15(1), doi 10.59341/2707-7799.1849"
)

WHY_THEY_DIFFER: Final = (
    "FER2013's labels are noisy (people agree with them on about 65 of 100 images: Goodfellow et al. 2013, arXiv "
    "1307.0414), so no protocol with separate test images reaches the paper's 97 %. "
    "The paper states neither its splits nor its protocol, and its own accuracies of one and the same complete network "
    "on FER2013 contradict each other: 81.42 % in Table 1, 97.34 % in Table 2, 97.76 % in Table 3."
)


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """One row of one of the paper's tables; fractions, None where the table has no such column.

    Tables 1 and 3 name FER2013; Table 2 is headed "FER dataset", which the paper uses for FER2013.
    """

    table: int
    accuracy: float
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


# By system: accuracy on FER2013, per cent.
_TABLE_1: Final = {"no-features": 61.20, "no-attention": 72.85, "no-reconstruction": 75.34, "complete": 81.42}
# By table and system: accuracy, precision, F1, recall, per cent, in the paper's order.
_TABLES_2_AND_3: Final[Mapping[int, Mapping[str, tuple[float, float, float, float]]]] = {
    2: {
        "cnn-lstm": (93.14, 93.52, 93.34, 93.21),
        "dscnn-lstm": (93.67, 93.98, 93.82, 94.12),
        "cnn-bilstm": (95.22, 95.35, 95.40, 95.58),
        "acnn-lstm": (92.98, 92.64, 92.82, 92.55),
        "complete": (97.34, 96.84, 96.96, 97.21),
    },
    3: {
        "cnn-lstm": (92.47, 91.84, 93.12, 92.68),
        "cnn-svm": (91.95, 92.16, 90.78, 91.22),
        "cnn-bilstm": (94.73, 94.89, 95.02, 94.68),
        "acnn-lstm": (90.81, 90.54, 90.14, 90.32),
        "complete": (97.76, 98.42, 98.64, 97.94),
    },
}


def published(system: str) -> tuple[PaperFigure, ...]:
    """Return every figure that the paper gives for a system on FER2013."""
    found = []
    if system in _TABLE_1:
        found.append(PaperFigure(table=1, accuracy=round(_TABLE_1[system] / 100, 4)))
    for table, rows in _TABLES_2_AND_3.items():
        if system in rows:
            accuracy, precision, f1, recall = (round(rate / 100, 4) for rate in rows[system])
            found.append(PaperFigure(table=table, accuracy=accuracy, precision=precision, recall=recall, f1=f1))
    return tuple(found)
