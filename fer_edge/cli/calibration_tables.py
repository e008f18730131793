"""What `fer-edge calibrate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import print_table

if TYPE_CHECKING:
    from fer_edge.calibrate.calibration import CalibrationOutcome
    from fer_edge.calibrate.candidates import Comparison
    from fer_edge.calibrate.sensitivity import LayerCost, SensitivityReport
    from fer_edge.core.manifest import Variant

__all__ = ["print_comparison", "print_outcome", "print_sensitivity"]


def print_outcome(outcome: CalibrationOutcome) -> None:
    """Sizes and accuracies of the forms beside their parent, and the gate's verdict."""
    parent, split = outcome.parent, outcome.split
    variants = [parent, *(form.variant for form in outcome.forms)]
    print_table(
        ("", *(variant.name for variant in variants)),
        [
            ("encoder + head, kB", *(_size(variant, parent) for variant in variants)),
            (f"{split} top-1", *(f"{variant.metrics[split].top1:.2%}" for variant in variants)),
            ("  without leaked rows", *(_rate(variant.metrics[split].top1_without_leaked) for variant in variants)),
            ("  macro-F1", *(f"{variant.metrics[split].macro_f1:.2%}" for variant in variants)),
            ("  ECE after temperature", *(f"{variant.metrics[split].ece:.4f}" for variant in variants)),
            ("  temperature", *(f"{variant.temperature:.3f}" for variant in variants)),
            ("largest logit difference", None, *(_logits(form.variant, "max") for form in outcome.forms)),
            ("mean logit difference", None, *(_logits(form.variant, "mean") for form in outcome.forms)),
        ],
        title=f"{outcome.bundle.manifest.name}: {parent.name} and what became of it",
        right=tuple(variant.name for variant in variants),
    )
    print_table(
        ("form", "check", "on", "measured", "limit", "McNemar p", ""),
        [
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
        title="the gate",
        right=("measured", "limit", "McNemar p"),
    )
    for form in outcome.forms:
        if mixed := form.variant.how_made.get("mixed"):
            click.echo(f"{form.variant.name}: left float by {mixed['method']}: {', '.join(mixed['float_layers'])}")


def print_sensitivity(report: SensitivityReport) -> None:
    """A row a layer, in the graph's order, and all of them together."""
    print_table(
        ("layer", "operator", "parameters", "top-1 drop", "flips", "ECE rise", "features, dB", "logits, dB", ""),
        [*map(_cost, report.layers), _cost(report.together)],
        title=f"{report.bundle['name']}: each layer quantized alone ({report.form}), {report.rows:,} rows of "
        f"{report.split} without leaked ones, {report.parent} {report.parent_top1:.2%}",
        caption="dB: signal to quantization noise, more is better. Points and shares are of the rows.",
        right=("parameters", "top-1 drop", "flips", "ECE rise", "features, dB", "logits, dB"),
    )


def print_comparison(comparison: Comparison) -> None:
    """A row a candidate and form, and which of them the rule takes."""
    parent, choice = comparison.parent, comparison.recipe.choice
    print_table(
        ("candidate", "form", "top-1", "flips", "p", "ECE", "ECE rise", "agreement", "logits", "kB", "gate", ""),
        [
            (
                each.name,
                each.form,
                f"{each.top1:.2%}",
                f"{each.flip_rate:.2%}",
                f"{each.mcnemar_p:.3f}",
                f"{each.ece:.4f}",
                f"{each.ece_rise:+.4f}",
                f"{each.agreement:.2%}",
                f"{each.mean_abs_logit_diff:.4f}",
                f"{each.size_bytes / 1000:,.0f}",
                "passed" if each.gate_passed else "FAILED",
                "ships" if comparison.chosen.get(each.form) == each.name else "" if each.within else "out",
            )
            for each in comparison.results
        ],
        title=f"{comparison.bundle['name']}: {comparison.rows['n']:,} rows of {comparison.rows['split']} without "
        f"leaked ones, parent {parent['top1']:.2%}, ECE {parent['ece']:.4f}",
        caption=f"rule: {choice.rule}, ECE at most {choice.max_ece_rise:.4f} above the parent's, each after its own "
        "temperature",
        right=("top-1", "flips", "p", "ECE", "ECE rise", "agreement", "logits", "kB"),
    )


def _cost(cost: LayerCost) -> tuple[str, ...]:
    return (
        cost.layer,
        cost.operator,
        f"{cost.parameters:,}",
        f"{100 * cost.top1_drop:+.2f}",
        f"{cost.flip_rate:.2%}",
        f"{cost.ece_rise:+.4f}",
        f"{cost.feature_sqnr_db:.1f}",
        f"{cost.logit_sqnr_db:.1f}",
        "" if cost.quantized_by_recipe else "left float",
    )


def _size(variant: Variant, parent: Variant) -> str:
    size, before = (sum(file.size_bytes for file in each.graphs) for each in (variant, parent))
    return f"{size / 1000:,.0f}" + (f" ({before / size:.2f}x smaller)" if variant is not parent else "")


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _logits(variant: Variant, which: str) -> str:
    return f"{variant.parity[f'{which}_abs_logit_diff']:.4f}"
