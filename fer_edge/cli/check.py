"""`fer-edge check`: would TensorRT accept a bundle's graphs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.export.preflight import Verdict

__all__ = ["command", "print_findings"]

_FINDING_COLUMNS = ("rule", "severity", "target", "variant", "graph", "node", "found", "cure")


@click.command(name="check")
@click.argument("bundle")
@click.option("--target", help="One target: a TensorRT version, dla, a target's name, or a recipe's path.")
@click.option("--variant", help="Only this variant.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value of the target's recipe.")
@click.option("--clip", is_flag=True, help="Also check the fused graph from a whole clip to its logits.")
@json_flag
@click.pass_context
def command(
    ctx: click.Context,
    bundle: str,
    target: str | None,
    variant: str | None,
    settings: tuple[str, ...],
    clip: bool,
    as_json: bool,
) -> None:
    """Check without a GPU whether each TensorRT version accepts the graphs of BUNDLE.

    Prints one verdict per variant and target, and every finding with its cure. Exits 1 where a graph is refused.
    """
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.preflight import ROWS, check_bundle, job_findings

    opened = Bundle.open(bundle)
    with progress("checking the graphs"):
        if target is None or target in ROWS:
            rows = ROWS if target is None else (target,)
            verdicts = check_bundle(opened, rows=rows, variants=(variant,) if variant else ())
        else:
            from fer_edge.export.job import target_job

            job = target_job(opened, target=target, variant=variant, settings=settings, clip=clip)
            verdicts = (job_findings(job),)
    accepted = all(verdict.accepted for verdict in verdicts)
    if as_json:
        emit_json({"accepted": accepted, "verdicts": [verdict.to_json() for verdict in verdicts]})
    else:
        _print_verdicts(verdicts)
    if not accepted:
        ctx.exit(1)


def _print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print a matrix of variants and targets, then one row per finding."""
    targets = list(dict.fromkeys(verdict.target for verdict in verdicts))
    words = {(v.variant, v.target): _word(v) for v in verdicts}
    variants = dict.fromkeys(verdict.variant for verdict in verdicts)
    rows = [(variant, *(words.get((variant, target)) for target in targets)) for variant in variants]
    print_table(("variant", *targets), rows, title="pre-flight: would the engine accept the graphs?")
    if any(verdict.findings for verdict in verdicts):
        click.echo()
        print_findings(verdicts)


def _word(verdict: Verdict) -> str:
    errors = sum(finding.severity == "error" for finding in verdict.findings)
    warnings = len(verdict.findings) - errors
    noted = f" ({warnings} warning{'s' * (warnings > 1)})" if warnings else ""
    return f"refused: {errors} error{'s' * (errors > 1)}{noted}" if errors else f"ok{noted}"


def print_findings(verdicts: Sequence[Verdict], *, title: str | None = None) -> None:
    """Print one row per finding; a finding that several targets share names them all."""
    targets: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        for each in verdict.findings:
            key = (each.rule, each.severity, verdict.variant, each.part, each.node, each.found, each.cure)
            targets.setdefault(key, []).append(each.target)
    rows = [(rule, severity, ", ".join(names), *rest) for (rule, severity, *rest), names in targets.items()]
    print_table(_FINDING_COLUMNS, rows, title=title)
