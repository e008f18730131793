"""The systems that the study trains: what each one is made of, and which of the paper's tables it stands in.

The complete system is the deployed network on one still, whose sequence is the region tokens of the face. An ablation
is that network with one part taken out; a baseline is built from the same convolutions, tokens and recurrent widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.errors import InputError

__all__ = ["SYSTEMS", "Group", "System", "chosen_systems"]

Group = Literal["tables", "beyond", "lstm", "size"]
"""Tables 1 to 3; ablations beyond the paper; the role of LSTM parameters; the paper's input size."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of a table.

    Attributes:
        name: of the row, in files and on the command line.
        title: as a table prints it.
        group: which part of the study it belongs to.
        tables: the paper's tables that hold it.
        features: what makes the region tokens: plain convolutions, depthwise separable ones (DSCNN), or the raw
            pixels of each region (no feature extraction).
        recurrence: over the tokens; ``"none"`` averages them (CNN-SVM).
        layers: recurrent layers.
        attention: point multiplication over the recurrent states (``"states"``), over the tokens in front of the
            recurrence (``"tokens"``, the attention CNN), or none.
        reduction: LDA behind the context.
        reconstruction: the DenseNet block behind it.
        classifier: softmax, or a support vector machine on the context.
        centre_loss: whether the centre loss is part of the training.
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
        """Whether a second stage trains what stands behind the context, which then stands still."""
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
    """The systems that `names` mean: systems' own names, or those of groups (``"tables"``, ``"lstm"``).

    Raises:
        InputError: a name that is neither.
    """
    wanted: dict[str, System] = {}
    for name in names:
        found = [system for system in _ALL if name in (system.name, system.group)]
        if not found:
            groups = dict.fromkeys(system.group for system in _ALL)
            raise InputError(f"no system {name!r}; expected one of {', '.join(SYSTEMS)}, or {', '.join(groups)}")
        wanted.update({system.name: system for system in found})
    return tuple(system for system in _ALL if system.name in wanted)
