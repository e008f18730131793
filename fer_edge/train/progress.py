"""How training tells of its progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Reporter", "Silent"]


class Reporter(Protocol):
    """Receives progress; the CLI draws it."""

    def step(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of a stage are behind us."""

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        """An epoch ended with these figures."""


class Silent:
    """Says nothing."""

    def step(self, stage: str, done: int, total: int) -> None:
        """Ignore a step."""

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        """Ignore an epoch."""
