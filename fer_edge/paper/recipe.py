"""The recipe of a study: seeds, and the one training recipe that all of its systems share."""

from __future__ import annotations

from dataclasses import dataclass, field

from fer_edge.core.json import expect
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe

__all__ = ["CkPlusSpec", "StudyRecipe"]


@dataclass(frozen=True, kw_only=True)
class CkPlusSpec:
    """The protocol on CK+, fixed before any training on it; shape, augmentation and losses are the study's.

    Attributes:
        seed: of weights, order and augmentation.
        folds: by subject; each is reported on once, the next one is held out to choose on, the others are trained on.
        scratch: optimiser of the first stage on stills from random weights.
        transfer: optimiser of the first stage on stills from the study's FER2013 weights.
        window: frames of a sequence after resampling.
        copies: augmented copies of every training still and sequence, whose features train the later layers.
        classifier_epochs: passes over these to train what follows the LDA, at the study's learning rate.
        classifier_batch: rows per step in that.
        sequence: optimiser of the sequence head's context, in front of a linear classifier.
    """

    seed: int = 0
    folds: int = 10
    scratch: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=60, batch_size=64, learning_rate=2e-3, warmup_epochs=3.0, weight_decay=0.02, ema_decay=0.98
        )
    )
    transfer: OptimiserSpec = field(
        default_factory=lambda: OptimiserSpec(
            epochs=20, batch_size=64, learning_rate=5e-4, warmup_epochs=1.0, weight_decay=0.02, ema_decay=0.95
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
        seeds: of the systems of Tables 1 to 3.
        extra_seeds: of everything beyond those tables.
        train: shape, augmentation, optimiser and losses of every system, except for its own changes. Of `sequence` only
            the number of copies and the classifier's settings apply: stills need no windows.
        ckplus: the protocol on CK+.
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
