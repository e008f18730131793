"""The recipe of a study: seeds, and the one training recipe that all of its systems share."""

from __future__ import annotations

from dataclasses import dataclass, field

from fer_edge.core.json import expect
from fer_edge.train.recipe import TrainRecipe

__all__ = ["StudyRecipe"]


@dataclass(frozen=True, kw_only=True)
class StudyRecipe:
    """The protocol of a study.

    Attributes:
        seeds: of the systems of Tables 1 to 3.
        extra_seeds: of everything beyond those tables.
        train: shape, augmentation, optimiser and losses of every system, except for its own changes. Of `sequence` only
            the number of copies and the classifier's settings apply: stills need no windows.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    extra_seeds: tuple[int, ...] = (0,)
    train: TrainRecipe = field(default_factory=TrainRecipe)

    def __post_init__(self) -> None:
        for name in ("seeds", "extra_seeds"):
            seeds = getattr(self, name)
            expect(len(set(seeds)) == len(seeds) >= 1, name, seeds, "at least one seed, each once")
            expect(min(seeds) >= 0, name, seeds, "0 or more")
