"""`fer-edge check`: would TensorRT accept the graphs of a bundle?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import progress, show
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.export.preflight import Verdict

__all__ = ["command", "findings_table"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    target: Annotated[str | None, opt.option("Only this target: a TensorRT version, dla, a name, or a recipe.")],
    variant: Annotated[str | None, opt.option("Only this variant.")],
    settings: Annotated[tuple[str, ...], opt.settings("precision=fp32")],
    clip: Annotated[bool, opt.flag("Also check the fused graph of a whole clip.")],
    json_out: Path | None,
) -> None:
    """Check without a GPU whether each TensorRT version accepts the graphs of BUNDLE.

    Prints one verdict per variant and target, and every finding with its cure. Exits 1 where a graph is refused.
    """
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.preflight import ROWS, check_bundle, job_findings

    opened = Bundle.open(bundle)
    with progress("checking the graphs"):
        if target is None or target in ROWS:
            if settings or clip:
                raise click.UsageError("--set and --clip need --target with a target's name or recipe")
            rows = ROWS if target is None else (target,)
            verdicts = check_bundle(opened, rows=rows, variants=(variant,) if variant else ())
        else:
            from fer_edge.export.job import target_job

            job = target_job(opened, target=target, variant=variant, settings=settings, clip=clip)
            verdicts = (job_findings(job),)
    accepted = all(verdict.accepted for verdict in verdicts)
    value = {"accepted": accepted, "verdicts": [verdict.to_json() for verdict in verdicts]}
    show(value, json_out, _tables(verdicts))
    if not accepted:
        click.get_current_context().exit(1)


def _tables(verdicts: Sequence[Verdict]) -> Iterator[Table | str]:
    variants = tuple(dict.fromkeys(verdict.variant for verdict in verdicts))
    words = {(verdict.target, verdict.variant): _word(verdict) for verdict in verdicts}
    targets = dict.fromkeys(verdict.target for verdict in verdicts)
    yield Table(
        columns=("target", *(Column(variant, "left") for variant in variants)),
        rows=[(target, *(words.get((target, variant)) for variant in variants)) for target in targets],
        title="pre-flight: does the engine accept the graphs?",
    )
    if any(verdict.findings for verdict in verdicts):
        yield ""
        yield findings_table(verdicts)


def _word(verdict: Verdict) -> str:
    errors = sum(finding.severity == "error" for finding in verdict.findings)
    warnings = len(verdict.findings) - errors
    noted = f" ({warnings} warning{'s' * (warnings > 1)})" if warnings else ""
    return f"refused: {errors} error{'s' * (errors > 1)}{noted}" if errors else f"ok{noted}"


def findings_table(verdicts: Sequence[Verdict]) -> Table:
    """Make a table of one row per finding; a finding that several targets share names them all."""
    targets: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        for each in verdict.findings:
            key = (each.rule, each.severity, verdict.variant, each.part, each.node, each.found, each.cure)
            targets.setdefault(key, []).append(each.target)
    return Table(
        columns=("rule", "severity", Column("target", "left"), "variant", "graph", "node", "found", "cure"),
        rows=[(rule, severity, ", ".join(names), *rest) for (rule, severity, *rest), names in targets.items()],
        title="findings",
    )
