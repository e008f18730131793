"""The recipe of a sweep: existing networks, a grid to train, a search; and what is measured of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fer_edge.bench.report import Timing
from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import FORMS
from fer_edge.core.json import decode, expect

__all__ = ["EVERY_BUNDLE", "FLOAT", "Distribution", "GridSpec", "SearchSpec", "SweepRecipe"]

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
class Distribution:
    """The values of one hyper-parameter: a range, or a list of choices.

    Attributes:
        low: smallest value; whole numbers at both ends give whole numbers.
        high: largest value, included.
        log: sample uniformly over the logarithm.
        step: distance of neighbouring values.
        choices: values as a recipe writes them, lists included.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices) or (self.low is None) != (self.high is None):
            raise InputError("expected low and high, or choices with at least one value")
        if self.low is not None and self.high is not None:
            expect(self.low < self.high, "low", self.low, f"less than high, {self.high:g}")
            expect(not self.log or self.low > 0, "low", self.low, "more than 0 where log = true")
            expect(self.step is None or (self.step > 0 and not self.log), "step", self.step, "above 0, and no log")


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A hyper-parameter search by Optuna (tree-structured Parzen estimator, Bergstra et al. 2011).

    The objective is the FP32 network's top-1 on the choosing split without leaked rows.

    Attributes:
        preset: the training recipe that every trial changes.
        space: `Distribution` by recipe key (``"optimiser.learning_rate"``), or by ``"width"`` and ``"tokens"`` as in
            the grid.
        teachers: runs or bundles that every trial is distilled from; several are averaged.
        trials: total over all processes.
        pruner: stops a trial at an epoch: below the median of the others, or by successive halving (Li et al. 2018),
            or never.
        startup: random trials at the beginning, which are never pruned.
        objective: ``"top1"``, or ``"top1-x"`` for the whole front of accuracy against x.
        x_at_most: shapes with a larger x are not trained.
        precision: of the graphs whose x is measured, with random weights, before the training.
        seed: of the sampler.
    """

    preset: str
    space: Mapping[str, Any]
    teachers: tuple[str, ...] = ()
    trials: int = 20
    pruner: Literal["median", "halving", "none"] = "median"
    startup: int = 5
    objective: Literal["top1", "top1-x"] = "top1"
    x_at_most: float | None = None
    precision: Literal["fp32", "int8"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        expect(self.trials >= 1, "trials", self.trials, "1 or more")
        expect(self.startup >= 1, "startup", self.startup, "1 or more")
        expect(self.seed >= 0, "seed", self.seed, "0 or more")
        expect(self.x_at_most is None or self.x_at_most > 0, "x_at_most", self.x_at_most, "above 0")
        if self.objective == "top1-x":
            expect(self.pruner == "none", "pruner", self.pruner, "'none' where there are two objectives")
        expect(bool(self.distributions()), "space", self.space, "at least one key with low and high, or choices")

    @property
    def measures_x(self) -> bool:
        """Whether the objective or its bound needs x."""
        return self.objective == "top1-x" or self.x_at_most is not None

    def distributions(self) -> dict[str, Distribution]:
        """Return the space by dotted key.

        Raises:
            InputError: an invalid distribution, named by its key.
        """
        return {key: decode(Distribution, value, where=f"space.{key}") for key, value in self.written().items()}

    def written(self) -> dict[str, Mapping[str, Any]]:
        """Return the space by dotted key as the recipe writes it, where 1 and 1.0 differ."""
        return dict(_flattened(self.space))


def _flattened(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield distributions by dotted key: TOML reads ``optimiser.learning_rate = {...}`` as nested tables."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        expect(isinstance(value, Mapping), f"space.{name}", value, "{ low = ..., high = ... } or { choices = [...] }")
        if value and all(isinstance(inner, Mapping) for inner in value.values()):
            yield from _flattened(value, f"{name}.")
        else:
            yield name, value


@dataclass(frozen=True, kw_only=True)
class SweepRecipe:
    """The networks of a sweep, their variants, and the providers that run them.

    Attributes:
        bundles: folders or shipped names, ``"*"`` for every shipped one; measured as they are.
        runs: folders of finished training runs.
        grid: networks to train.
        search: hyper-parameter search; its best networks are measured with the rest.
        keep: shares of the encoder's multiply-accumulates that pruning keeps of every run, grid and search network;
            1 means unpruned.
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
    search: SearchSpec | None = None
    keep: tuple[float, ...] = (1.0,)
    precisions: tuple[str, ...] = (FLOAT, "int8")
    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    train_settings: tuple[str, ...] = ()
    prune_settings: tuple[str, ...] = ()
    calibrate_settings: tuple[str, ...] = ()
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if not (self.bundles or self.runs or self.grid or self.search):
            raise InputError("networks: got none, expected bundles, runs, a [grid] or a [search]")
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
        return bool(self.runs or self.grid or self.search)


def _expect_unique(name: str, values: tuple[Any, ...], *, least: int = 1) -> None:
    expect(len(set(values)) == len(values) >= least, name, values, "at least one value, each once")
