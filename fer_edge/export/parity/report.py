"""What the parity chain reports: every stage, its figures and limits, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fer_edge.core.errors import GateError
from fer_edge.core.json import encode, expect
from fer_edge.export.parity.layer_search import Divergence

__all__ = ["ChainReport", "ParityLimits", "StageReport"]


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """What two stages may differ by.

    Attributes:
        float_difference: largest logit difference where both compute the same floats, before temperature.
        agreement: least share of equal labels where 8-bit numbers are rounded.
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
        """Limits for generated faces: no network was trained on them, so more of them lie between two labels."""
        return cls(agreement=0.9, spread=0.1)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            expect(value >= 0, name, value, "0 or more")


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One step of the chain.

    Attributes:
        variant: whose graphs.
        stage: ``"torch -> ONNX"``, ``"fp32 -> int8"``, ``"int8 in openvino"``.
        provider: the runtime's provider that is judged; empty for the stages before the engines. `choose_variant` reads
            it back from the manifest.
        rows: labels compared; 0 where it did not run.
        max_abs_diff: largest difference of any logit, before temperature.
        mean_abs_diff: mean difference.
        spread: root mean square of the difference over the logits' standard deviation.
        agreement: share of equal labels.
        limit: what was asked for, in words.
        passed: within it; None where the stage did not run.
        remark: why it did not run, or what went wrong.
        divergence: where a failed stage parts from the one before.
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
class ChainReport:
    """Every stage, and the verdict.

    Attributes:
        bundle: its name.
        frames: what was computed on, in words.
        created: when.
        limits: what was allowed.
        stages: in the order of the chain.
    """

    bundle: str
    frames: str
    created: str
    limits: ParityLimits
    stages: tuple[StageReport, ...]

    @property
    def passed(self) -> bool:
        """No stage that ran is beyond its limit."""
        return all(stage.passed is not False for stage in self.stages)

    def require_passed(self) -> None:
        """Refuse a broken chain.

        Raises:
            GateError: naming each stage that failed and where it parts.
        """
        failed = [stage for stage in self.stages if stage.passed is False]
        if failed:
            raise GateError("parity is broken:\n  " + "\n  ".join(map(_failure, failed)))

    def to_json(self) -> dict[str, Any]:
        """The fields by name, with the verdict."""
        return {"passed": self.passed, **encode(self)}


def _failure(stage: StageReport) -> str:
    if stage.agreement is None:
        return f"{stage.stage}: {stage.remark}"
    figures = (
        f"largest difference {stage.max_abs_diff:.3g}, same label {stage.agreement:.2%}, spread {stage.spread:.3g}"
    )
    where = f"; {stage.divergence or stage.remark}" if stage.divergence or stage.remark else ""
    return f"{stage.stage}: {figures} (limit: {stage.limit}){where}"
