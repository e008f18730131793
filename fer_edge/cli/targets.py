"""What `fer-edge export` prints of targets: the dry run, the pre-flight, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, print_table

if TYPE_CHECKING:
    from fer_edge.export.parity import Parity
    from fer_edge.export.plan import TargetPlan
    from fer_edge.export.preflight import Verdict
    from fer_edge.export.targets import TargetReport

_FINDING_COLUMNS = ("rule", "severity", "target", "variant", "graph", "node", "found", "cure")


def show_report(report: TargetReport, folder: Path, *, as_json: bool) -> None:
    """What was written."""
    if as_json:
        emit_json({"folder": str(folder), **report.to_json()})
        return
    rows = [(file.name, f"{file.size_bytes / 1e6:.2f} MB", file.sha256[:16]) for file in report.files]
    said = [f"graphs after {', '.join(report.passes)}: {_agreement(report.graphs)}"] if report.graphs else []
    said.append(f"files: {_agreement(report.parity)}" if report.parity else f"files not run: {report.not_run}")
    print_table(
        ("file", "size", "sha256"),
        rows,
        title=f"{folder}: {report.bundle} {report.variant} ({report.precision}) for {report.target}, {report.provider}",
        caption="; ".join(said),
        right=("size",),
    )


def show_plan(plan: TargetPlan, *, as_json: bool) -> None:
    """What would be written, and why it would be refused."""
    if as_json:
        emit_json(plan.to_json())
        return
    job = plan.job
    print_table(
        ("file", "graph", "precision", "remark"),
        [(file.name, file.part, file.precision, file.remark) for file in plan.files],
        title=f"{job.name}: {job.recipe.summary}. Would write {job.variant} in {job.computes_in}:",
        caption=f"passes: {', '.join(job.passes) or 'none'}",
    )
    click.echo()
    rows = [
        (part, name, shape.min, shape.opt, shape.max) for part, ins in job.shapes.items() for name, shape in ins.items()
    ]
    print_table(("graph", "input", "smallest", "tuned for", "largest"), rows)
    if plan.preflight.findings:
        click.echo()
        _print_findings([plan.preflight], title="pre-flight")
    click.echo()
    click.echo("would be refused:" if plan.refused else "would be written; nothing was")
    for refusal in plan.refusals:
        click.echo(f"  - {refusal}")


def show_verdicts(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """A matrix of variants and targets, then a row a finding."""
    if as_json:
        emit_json({"accepted": all(each.accepted for each in verdicts), "verdicts": [v.to_json() for v in verdicts]})
        return
    targets = list(dict.fromkeys(verdict.target for verdict in verdicts))
    words = {(v.variant, v.target): _word(v) for v in verdicts}
    variants = dict.fromkeys(verdict.variant for verdict in verdicts)
    rows = [(variant, *(words.get((variant, target)) for target in targets)) for variant in variants]
    print_table(("variant", *targets), rows, title="pre-flight: would the engine take the graphs?")
    if any(verdict.findings for verdict in verdicts):
        click.echo()
        _print_findings(verdicts)


def _word(verdict: Verdict) -> str:
    errors = sum(finding.severity == "error" for finding in verdict.findings)
    warnings = len(verdict.findings) - errors
    noted = f" ({warnings} warning{'s' * (warnings > 1)})" if warnings else ""
    return f"refused: {errors} error{'s' * (errors > 1)}{noted}" if errors else f"ok{noted}"


def _print_findings(verdicts: Sequence[Verdict], *, title: str | None = None) -> None:
    """A row a finding; one that several targets share names them all."""
    targets: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        for each in verdict.findings:
            key = (each.rule, each.severity, verdict.variant, each.part, each.node, each.found, each.cure)
            targets.setdefault(key, []).append(each.target)
    rows = [(rule, severity, ", ".join(names), *rest) for (rule, severity, *rest), names in targets.items()]
    print_table(_FINDING_COLUMNS, rows, title=title)


def _agreement(parity: Parity) -> str:
    labels = "" if parity.label_agreement is None else f", same label {parity.label_agreement:.1%}"
    return f"largest difference {parity.max_abs_diff:.2g}{labels}"
