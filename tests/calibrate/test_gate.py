from __future__ import annotations

import numpy as np
import pytest

from fer_edge.calibrate.gate import check_gate, require_gates
from fer_edge.calibrate.recipe import GateLimits
from fer_edge.core.errors import GateError
from fer_edge.core.metrics import PairedReport, paired_report

LIMITS = GateLimits(max_top1_drop=0.1, max_flip_rate=0.2, max_ece_rise=0.05, min_agreement=0.9)


def paired(*, broken: int = 0, mended: int = 0, confidence: float = 0.9) -> PairedReport:
    """100 rows, 50 of them right at a confidence of 0.9; then some right ones go wrong, some wrong ones right."""
    labels = np.zeros(100, np.int64)

    def probabilities(predicted: np.ndarray, top: float) -> np.ndarray:
        rows = np.full((100, 7), (1 - top) / 6)
        rows[np.arange(100), predicted] = top
        return rows

    before = np.repeat([0, 1], 50)
    after = before.copy()
    after[:broken] = 1
    after[50 : 50 + mended] = 0
    return paired_report(probabilities(before, 0.9), probabilities(after, confidence), labels)


def verdict(report: PairedReport, outside: PairedReport | None = None) -> dict[str, bool]:
    gate = check_gate({"rows": report}, {"others": outside or paired()}, LIMITS)
    assert gate.passed == all(check.passed for check in gate.checks)
    return {check.name: check.passed for check in gate.checks}


ALL_PASSED = {"max_top1_drop": True, "max_flip_rate": True, "max_ece_rise": True, "min_agreement": True}


def test_nothing_lost_passes() -> None:
    assert verdict(paired()) == ALL_PASSED


def test_a_limit_that_is_met_exactly_passes() -> None:
    assert verdict(paired(broken=10, mended=10), paired(broken=5, mended=5)) == ALL_PASSED


def test_each_loss_fails_its_own_check() -> None:
    assert verdict(paired(broken=11, confidence=0.81)) == {**ALL_PASSED, "max_top1_drop": False}
    assert verdict(paired(broken=11, mended=11)) == {**ALL_PASSED, "max_flip_rate": False}
    assert verdict(paired(confidence=0.96)) == {**ALL_PASSED, "max_ece_rise": False}
    assert verdict(paired(), paired(broken=6, mended=5)) == {**ALL_PASSED, "min_agreement": False}


def test_a_gain_is_no_drop() -> None:
    gate = check_gate({"rows": paired(mended=20)}, {"others": paired()}, LIMITS)
    assert gate.checks[0].measured == pytest.approx(-0.2)
    assert gate.passed


def test_every_window_is_checked() -> None:
    gate = check_gate(
        {"T = 1": paired(), "T = 16": paired(broken=20, mended=5, confidence=0.75)}, {"others": paired()}, LIMITS
    )
    failed = {(check.name, check.on) for check in gate.checks if not check.passed}
    assert failed == {("max_top1_drop", "T = 16"), ("max_flip_rate", "T = 16")}


def test_the_error_names_form_check_figure_and_limit() -> None:
    good = check_gate({"rows": paired()}, {"others": paired()}, LIMITS)
    bad = check_gate({"rows": paired(broken=30)}, {"others": paired(broken=20)}, LIMITS)
    require_gates([("int8", good)])
    with pytest.raises(GateError) as caught:
        require_gates([("int8", good), ("int8-trt", bad)])
    text = str(caught.value)
    assert "nothing was written" in text
    assert "int8-trt: max_top1_drop 0.3000, limit 0.1000, on rows" in text
    assert "int8-trt: min_agreement 0.8000, limit 0.9000, on others" in text
    assert "int8: " not in text


def test_the_record_holds_verdict_checks_and_comparisons() -> None:
    record = check_gate({"rows": paired(broken=5)}, {"others": paired()}, LIMITS).to_json()
    assert record["passed"] is True
    assert record["checks"][0] == {
        "name": "max_top1_drop", "on": "rows", "measured": 0.05, "limit": 0.1, "passed": True,
    }  # fmt: skip
    assert record["paired"]["rows"]["mcnemar_p"] == pytest.approx(0.0625)
