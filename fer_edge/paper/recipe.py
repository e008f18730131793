"""What a study is told: seeds, and the one training recipe that all of its systems share."""

from __future__ import annotations

from dataclasses import dataclass, field

from fer_edge.core.json import expect
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe

__all__ = ["CkPlusSpec", "StudyRecipe"]


@dataclass(frozen=True, kw_only=True)
class CkPlusSpec:
    """The protocol on CK+, fixed before anyone has trained on it: shape, augmentation and losses are the study's own.

    Attributes:
        seed: of weights, order and augmentation.
        folds: by subject; each is reported on once, the next one is held out to choose on, the rest are trained on.
        scratch: optimiser of the stills' first stage from random weights.
        transfer: of the same from the weights that the study left for FER2013.
        window: frames that a sequence is brought to.
        copies: augmented copies of every training still, and of every training sequence, on whose features what stands
            behind them is trained.
        classifier_epochs: passes over these to train what stands behind the LDA, at the study's rate.
        classifier_batch: rows a step in that.
        sequence: optimiser of the sequence head's context, in front of a linear classifier.
    """

    seed: int = 0
    folds: int = 10
    scratch: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=60, batch_size=64, learning_rate=2e-3, warmup_epochs=3.0, weight_decay=0.02
        )
    )
    transfer: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=20, batch_size=64, learning_rate=5e-4, warmup_epochs=1.0, weight_decay=0.02
        )
    )
    window: int = 16
    copies: int = 6
    classifier_epochs: int = 40
    classifier_batch: int = 64
    sequence: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=60, batch_size=64, learning_rate=1e-3, warmup_epochs=2.0, weight_decay=0.01
        )
    )

    def __post_init__(self) -> None:
        expect(self.seed >= 0, "seed", self.seed, "0 or more")
        expect(
            self.folds >= 3, "folds", self.folds, "at least 3: one to report on, one to choose on, the rest to train"
        )
        expect(self.window >= 2, "window", self.window, "at least 2, the neutral frame and the peak")
        for name in ("copies", "classifier_epochs"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        expect(self.classifier_batch >= 2, "classifier_batch", self.classifier_batch, "2 or more")


@dataclass(frozen=True, kw_only=True)
class StudyRecipe:
    """The protocol of a study.

    Attributes:
        seeds: the systems of Tables 1 to 3 are trained once with each.
        extra_seeds: and these are the seeds of everything beyond those tables.
        train: shape, augmentation, optimiser and losses of every system, but for what a system itself changes. Of
            `sequence` the number of copies and what concerns the classifier apply: stills need no windows.
        ckplus: what changes on CK+, where the study is given it.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    extra_seeds: tuple[int, ...] = (0,)
    train: TrainRecipe = field(default_factory=TrainRecipe)
    ckplus: CkPlusSpec = field(default_factory=CkPlusSpec)

    def __post_init__(self) -> None:
        for name in ("seeds", "extra_seeds"):
            seeds = getattr(self, name)
            expect(len(set(seeds)) == len(seeds) >= 1, name, seeds, "at least one seed, each once")
            expect(min(seeds) >= 0, name, seeds, "0 or more")
