"""`fer-edge check`: would TensorRT accept the graphs of a bundle?"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import progress, show
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.export.preflight import Verdict
    from fer_edge.graph.preflight.finding import Finding

__all__ = ["command", "findings_table"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    target: Annotated[str | None, opt.option("Only this target: a TensorRT version, dla, a name, or a recipe.")],
    variant: Annotated[str | None, opt.option("Only this variant.")],
    settings: Annotated[tuple[str, ...], opt.settings("precision=fp32")],
    clip: Annotated[bool, opt.flag("Also check the fused graph of a whole clip.")],
    verbose: Annotated[bool, opt.flag("Print every finding, with its node.")],
    json_out: Path | None,
) -> None:
    """Check without a GPU whether each TensorRT version accepts the graphs of BUNDLE.

    Prints one verdict per variant and target, and one line per rule that finds something, with the cure; --verbose
    and --json have every finding. Exits 1 where a graph is refused. The variant int8 (uint8 activations) is for ONNX
    Runtime and OpenVINO: every TensorRT refuses it and takes int8-trt.
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
            from fer_edge.export.selection import choose_target

            choose_target(target, also=ROWS)

            job = target_job(opened, target=target, variant=variant, settings=settings, clip=clip)
            verdicts = (job_findings(job),)
    accepted = all(verdict.accepted for verdict in verdicts)
    value = {"accepted": accepted, "verdicts": [verdict.to_json() for verdict in verdicts]}
    show(value, json_out, _tables(verdicts, verbose=verbose))
    if not accepted:
        click.get_current_context().exit(1)


def _tables(verdicts: Sequence[Verdict], *, verbose: bool) -> Iterator[Table | str]:
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
        if verbose:
            yield findings_table(verdicts)
        else:
            yield from _by_rule(verdicts)


def _by_rule(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Describe the findings of each rule in one line: where, the first one, how many there are, and the cure."""
    rules: dict[tuple[str, str], list[tuple[Verdict, Finding]]] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            rules.setdefault((finding.severity, finding.rule), []).append((verdict, finding))
    for (severity, rule), found in sorted(rules.items()):
        variants = ", ".join(dict.fromkeys(verdict.variant for verdict, _ in found))
        targets = list(dict.fromkeys(verdict.target for verdict, _ in found))
        where = ", ".join(targets) if len(targets) < len({each.target for each in verdicts}) else "every target"
        nodes = len({(verdict.variant, finding.part, finding.node) for verdict, finding in found})
        first = found[0][1]
        more = f" (the first of {nodes})" if nodes > 1 else ""
        what = f"{first.part} {first.node}: {first.found}{more}; {first.cure}"
        yield _fitted(f"{severity} {rule} in {variants}, for {where}: {what}")
    yield "--verbose lists every finding."


def _fitted(line: str) -> str:
    """Wrap a line as tables are: to the terminal (or `COLUMNS`), not at all in a pipe or a file."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return line
    return "\n".join(textwrap.wrap(line, shutil.get_terminal_size().columns, subsequent_indent="  "))


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
