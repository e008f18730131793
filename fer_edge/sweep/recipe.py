"""The recipe of a sweep: existing networks, a grid to train, and what is measured of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from fer_edge.bench.report import Timing
from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import FORMS
from fer_edge.core.json import expect

__all__ = ["EVERY_BUNDLE", "FLOAT", "GridSpec", "SweepRecipe"]

EVERY_BUNDLE: Final = "*"
"""In `SweepRecipe.bundles`: every shipped bundle."""

FLOAT: Final = "fp32"


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """Trainings: every preset with every width and token count.

    Attributes:
        presets: training recipes by name or path.
        widths: factors on every channel count and hidden width; the products are rounded to multiples of 8.
        tokens: region tokens, square numbers; the preset's own where empty.
        teachers: runs or bundles that every training is distilled from; several are averaged.
    """

    presets: tuple[str, ...]
    widths: tuple[float, ...] = (1.0,)
    tokens: tuple[int, ...] = ()
    teachers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _expect_unique("presets", self.presets)
        _expect_unique("widths", self.widths)
        for width in self.widths:
            expect(0 < width <= 16, "widths", width, "factors above 0, at most 16")
        for count in self.tokens:
            expect(count >= 1 and round(count**0.5) ** 2 == count, "tokens", count, "square numbers: 1, 4, 9, 16")


@dataclass(frozen=True, kw_only=True)
class SweepRecipe:
    """The networks of a sweep, their variants, and the providers that run them.

    Attributes:
        bundles: folders or shipped names, ``"*"`` for every shipped one; measured as they are.
        runs: folders of finished training runs.
        grid: networks to train.
        keep: shares of the encoder's multiply-accumulates that pruning keeps of every run and grid network; 1 means
            unpruned.
        precisions: variants to measure; INT8 variants are calibrated for networks that the sweep exports.
        providers: runtime providers; all points of one provider are timed interleaved.
        train_settings: changes to the training recipes, written as for ``--set``: ``"optimiser.epochs=20"``.
        prune_settings: the same for pruning.
        calibrate_settings: the same for calibration.
        timing: rounds and samples; cold starts and idle times are not measured.
    """

    bundles: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    grid: GridSpec | None = None
    keep: tuple[float, ...] = (1.0,)
    precisions: tuple[str, ...] = (FLOAT, "int8")
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    train_settings: tuple[str, ...] = ()
    prune_settings: tuple[str, ...] = ()
    calibrate_settings: tuple[str, ...] = ()
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if not (self.bundles or self.runs or self.grid):
            raise InputError("networks: got none, expected bundles, runs or a [grid]")
        for name in ("keep", "precisions", "providers"):
            _expect_unique(name, getattr(self, name))
        for name in ("bundles", "runs"):
            _expect_unique(name, getattr(self, name), least=0)
        for share in self.keep:
            expect(0 < share <= 1, "keep", share, "shares above 0, at most 1")
        expect(self.threads >= 1, "threads", self.threads, "1 or more")
        if not self.makes_networks:
            expect(self.keep == (1.0,), "keep", self.keep, "no such key: bundles are measured as they are")
        else:
            for precision in self.precisions:
                expect(precision in (FLOAT, *FORMS), "precisions", precision, f"one of {', '.join((FLOAT, *FORMS))}")

    @property
    def makes_networks(self) -> bool:
        """Whether anything has to be trained, pruned, exported or calibrated."""
        return bool(self.runs or self.grid)


def _expect_unique(name: str, values: tuple[Any, ...], *, least: int = 1) -> None:
    expect(len(set(values)) == len(values) >= least, name, values, "at least one value, each once")
