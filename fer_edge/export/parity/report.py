"""The report of a parity check: every stage, its figures and limits, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fer_edge.core.errors import GateError
from fer_edge.core.json import encode, expect
from fer_edge.export.parity.layer_search import Divergence

__all__ = ["ParityLimits", "ParityReport", "StageReport"]


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """Allowed differences between two stages.

    Attributes:
        float_difference: largest logit difference between equal floats, before temperature.
        agreement: least share of equal labels after rounding to 8 bits.
        spread: there, the root mean square of the logits' difference over their standard deviation.
        layer_float: spread of one tensor's difference, in the search for the first diverging layer, between floats.
        layer_rounded: the same where both sides round to 8 bits at the same places.
        layer_quantized: the same from floats to 8 bits.
    """

    float_difference: float = 1e-3
    agreement: float = 0.97
    spread: float = 0.06
    layer_float: float = 1e-3
    layer_rounded: float = 0.05
    layer_quantized: float = 0.25

    @classmethod
    def for_generated(cls) -> ParityLimits:
        """Return limits for drawn faces: networks were not trained on them, so more are close to two labels."""
        return cls(agreement=0.9, spread=0.1)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            expect(value >= 0, name, value, "0 or more")

    def layer(self, *, exact: bool) -> float:
        """Return the limit of one layer in an engine."""
        return self.layer_float if exact else self.layer_rounded


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One comparison.

    Attributes:
        variant: the variant compared.
        stage: ``"torch -> ONNX"``, ``"fp32 -> int8"``, ``"int8 in openvino"``.
        provider: the runtime's provider under test; empty before the engines. `choose_variant` reads it from the
            manifest.
        rows: labels compared; 0 where the stage did not run.
        max_abs_diff: largest difference of any logit, before temperature.
        mean_abs_diff: mean difference.
        spread: root mean square of the difference over the logits' standard deviation.
        agreement: share of equal labels.
        limit: the limit in words.
        passed: within the limit; None where the stage did not run.
        remark: why it did not run or failed.
        divergence: the layer at which a failed stage differs.
    """

    variant: str
    stage: str
    provider: str = ""
    rows: int = 0
    max_abs_diff: float | None = None
    mean_abs_diff: float | None = None
    spread: float | None = None
    agreement: float | None = None
    limit: str = ""
    passed: bool | None = None
    remark: str = ""
    divergence: Divergence | None = None


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Every stage, and the verdict.

    Attributes:
        bundle: its name.
        frames: the input frames, in words.
        created: ISO 8601 time.
        limits: the limits applied.
        stages: in order.
    """

    bundle: str
    frames: str
    created: str
    limits: ParityLimits
    stages: tuple[StageReport, ...]

    @property
    def passed(self) -> bool:
        """Whether no stage that ran exceeds its limit."""
        return all(stage.passed is not False for stage in self.stages)

    def require_passed(self) -> None:
        """Refuse a report with a failed stage.

        Raises:
            GateError: naming each failed stage and the layer at which it differs.
        """
        failed = [stage for stage in self.stages if stage.passed is False]
        if failed:
            raise GateError("parity is broken:\n  " + "\n  ".join(map(_failure, failed)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with the verdict."""
        return {"passed": self.passed, **encode(self)}


def _failure(stage: StageReport) -> str:
    if stage.agreement is None:
        return f"{stage.stage}: {stage.remark}"
    figures = (
        f"largest difference {stage.max_abs_diff:.3g}, same label {stage.agreement:.2%}, spread {stage.spread:.3g}"
    )
    where = f"; {stage.divergence or stage.remark}" if stage.divergence or stage.remark else ""
    return f"{stage.stage}: {figures} (limit: {stage.limit}){where}"
