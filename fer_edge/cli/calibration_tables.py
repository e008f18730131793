"""The tables of `fer-edge calibrate` and `fer-edge sensitivity`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.calibrate.calibration import CalibrationOutcome
    from fer_edge.calibrate.candidates import Comparison
    from fer_edge.calibrate.sensitivity import SensitivityReport
    from fer_edge.core.manifest import Variant

__all__ = ["comparison_table", "outcome_parts", "sensitivity_table"]


def outcome_parts(outcome: CalibrationOutcome) -> Iterator[Table | str]:
    """Yield size and accuracy of the forms beside their parent, and the verdict of the gate."""
    parent, split = outcome.parent, outcome.split
    variants = [parent, *(form.variant for form in outcome.forms)]
    measured = [variant.metrics[split] for variant in variants]
    logits = [form.variant.parity for form in outcome.forms]
    yield Table(
        columns=("", *(Column(variant.name, "right") for variant in variants)),
        rows=[
            ("encoder + head, kB", *(_size(variant, parent) for variant in variants)),
            (f"{split} top-1", *(f"{report.top1:.2%}" for report in measured)),
            ("  without leaked rows", *(_rate(report.top1_without_leaked) for report in measured)),
            ("  macro-F1", *(f"{report.macro_f1:.2%}" for report in measured)),
            ("  ECE after temperature", *(f"{report.ece:.4f}" for report in measured)),
            ("  temperature", *(f"{variant.temperature:.3f}" for variant in variants)),
            ("largest logit difference", None, *(f"{parity['max_abs_logit_diff']:.4f}" for parity in logits)),
            ("mean logit difference", None, *(f"{parity['mean_abs_logit_diff']:.4f}" for parity in logits)),
        ],
        title=f"{outcome.bundle.manifest.name}: {parent.name} and its INT8 forms",
    )
    yield ""
    yield Table(
        columns=("form", "check", Column("on", priority=1), "measured", "limit", Column("p", priority=2), "verdict"),
        rows=[
            (
                form.variant.name,
                check.name,
                check.on,
                f"{check.measured:.4f}",
                f"{check.limit:.4f}",
                f"{form.gate.paired[check.on].mcnemar_p:.3f}" if check.name == "max_top1_drop" else None,
                "passed" if check.passed else "FAILED",
            )
            for form in outcome.forms
            for check in form.gate.checks
        ],
        title="accuracy gate",
        caption="p: McNemar's test",
    )


def sensitivity_table(report: SensitivityReport) -> Table:
    """Make a table of one row per layer in the order of the graph, and of all layers together."""
    return Table.of(
        (*report.layers, report.together),
        {
            "layer": lambda cost: cost.layer,
            Column("operator", priority=4): lambda cost: cost.operator,
            Column("parameters", priority=5): lambda cost: f"{cost.parameters:,}",
            "top-1 drop": lambda cost: f"{100 * cost.top1_drop:+.2f}",
            "flips": lambda cost: f"{cost.flip_rate:.2%}",
            Column("ECE rise", priority=1): lambda cost: f"{cost.ece_rise:+.4f}",
            Column("features, dB", priority=3): lambda cost: f"{cost.feature_sqnr_db:.1f}",
            "logits, dB": lambda cost: f"{cost.logit_sqnr_db:.1f}",
            "recipe": lambda cost: None if cost.quantized_by_recipe else "left float",
        },
        title=f"{report.bundle['name']}: each layer quantized alone ({report.form}), {report.rows:,} rows of "
        f"{report.split} without leaked ones, {report.parent} {report.parent_top1:.2%}",
        caption="top-1 drop: points. dB: signal to quantization noise, higher is better.",
    )


def comparison_table(comparison: Comparison) -> Table:
    """Make a table of one row per candidate and form, with the selected ones."""
    parent, choice = comparison.parent, comparison.recipe.choice
    return Table.of(
        comparison.results,
        {
            "candidate": lambda each: each.name,
            "form": lambda each: each.form,
            "top-1": lambda each: f"{each.top1:.2%}",
            "flips": lambda each: f"{each.flip_rate:.2%}",
            Column("p", priority=5): lambda each: f"{each.mcnemar_p:.3f}",
            Column("ECE", priority=6): lambda each: f"{each.ece:.4f}",
            Column("ECE rise", priority=2): lambda each: f"{each.ece_rise:+.4f}",
            Column("agreement", priority=3): lambda each: f"{each.agreement:.2%}",
            Column("logits", priority=4): lambda each: f"{each.mean_abs_logit_diff:.4f}",
            Column("kB", priority=1): lambda each: f"{each.size_bytes / 1000:,.0f}",
            "gate": lambda each: "passed" if each.gate_passed else "FAILED",
            "selected": lambda each: (
                "yes" if comparison.chosen.get(each.form) == each.name else None if each.within else "out of limits"
            ),
        },
        title=f"{comparison.bundle['name']}: {comparison.rows['n']:,} rows of {comparison.rows['split']} without "
        f"leaked ones, parent {parent['top1']:.2%}, ECE {parent['ece']:.4f}",
        caption=f"selected: fewest flips, ECE at most {choice.max_ece_rise:.4f} above the parent's, each after its own "
        "temperature",
    )


def _size(variant: Variant, parent: Variant) -> str:
    size, before = (sum(file.size_bytes for file in each.graphs) for each in (variant, parent))
    return f"{size / 1000:,.0f}" + (f" ({before / size:.2f}x smaller)" if variant is not parent else "")


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"
