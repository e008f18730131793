"""The accuracy gate: what an INT8 form lost against its parent, and whether that is too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fer_edge.calibrate.recipe import GateLimits
from fer_edge.core.errors import GateError
from fer_edge.core.json import encode
from fer_edge.core.metrics import PairedReport

__all__ = ["GateCheck", "GateReport", "check_gate", "require_gates"]


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One figure against its limit.

    Attributes:
        name: the limit's name in the recipe.
        on: the rows and window it was measured on.
        measured: what was found.
        limit: what is allowed.
        passed: whether it is within.
    """

    name: str
    on: str
    measured: float
    limit: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """Every check of one form.

    Attributes:
        checks: in the order they were made.
        paired: the comparisons behind them, by the rows they were made on.
    """

    checks: tuple[GateCheck, ...]
    paired: Mapping[str, PairedReport]

    @property
    def passed(self) -> bool:
        """Whether every check is within its limit."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Checks and comparisons, with the verdict."""
        return {"passed": self.passed, "checks": encode(self.checks), "paired": encode(self.paired)}


def check_gate(
    choosing: Mapping[str, PairedReport], agreement: Mapping[str, PairedReport], limits: GateLimits
) -> GateReport:
    """Hold comparisons with the parent against the limits.

    Args:
        choosing: on the choosing split without leaked rows, by what it was measured on (one entry a window).
        agreement: on training rows outside the calibration sample, likewise.
        limits: what may be lost.
    """
    checks: list[GateCheck] = []

    def at_most(name: str, on: str, measured: float, limit: float) -> None:
        checks.append(GateCheck(name=name, on=on, measured=measured, limit=limit, passed=measured <= limit))

    for on, paired in choosing.items():
        at_most("max_top1_drop", on, -paired.top1_delta, limits.max_top1_drop)
        at_most("max_flip_rate", on, paired.flip_rate, limits.max_flip_rate)
        at_most("max_ece_rise", on, paired.ece_delta, limits.max_ece_rise)
    for on, paired in agreement.items():
        least = limits.min_agreement
        checks.append(
            GateCheck(
                name="min_agreement", on=on, measured=paired.agreement, limit=least, passed=paired.agreement >= least
            )
        )
    return GateReport(checks=tuple(checks), paired={**choosing, **agreement})


def require_gates(reports: Iterable[tuple[str, GateReport]]) -> None:
    """Refuse forms that lost too much.

    Raises:
        GateError: naming each form and check that failed, with its figure and its limit.
    """
    failures = [
        f"{form}: {check.name} {check.measured:.4f}, limit {check.limit:.4f}, on {check.on}"
        for form, report in reports
        for check in report.checks
        if not check.passed
    ]
    if failures:
        raise GateError(
            "INT8 lost more accuracy than the recipe allows, so nothing was written:\n  "
            + "\n  ".join(failures)
            + "\nTry another ptq.activation_range, a larger sample, mixed.method (float layers, chosen by what they "
            "cost), or train for INT8 (fer-edge qat)"
        )
