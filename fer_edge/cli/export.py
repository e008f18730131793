"""`fer-edge export`: a training run or a bundle becomes a bundle, or a bundle becomes a target's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.check import print_findings
from fer_edge.cli.console import ProgressBar, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.manifest import GraphFile, Variant
    from fer_edge.export.dry_run import TargetPlan
    from fer_edge.export.parity.outputs import Parity
    from fer_edge.export.target import TargetReport

__all__ = ["command"]


@click.command(name="export")
@click.argument("source", metavar="RUN|BUNDLE")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write; with --target NAME-TARGET by default.",
)
@click.option("--target", help="Write what this target runs: auto, a target's name, or a recipe's path.")
@click.option("--variant", help="With --target: the variant to take; the recipe's choice by default.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="With --target: change a value of its recipe."
)
@click.option("--clip", is_flag=True, help="With --target: also the fused graph from a whole clip to its logits.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0, min_open=True), help="With --target: largest difference that passes."
)
@click.option("--dry-run", is_flag=True, help="With --target: print what would be written, or why not.")
@click.option("--name", help="The bundle's name: by default a RUN's folder, a BUNDLE's own name.")
@click.option("--licence", metavar="TEXT", help="Licence of the weights; by default that of known data.")
@click.option("--overwrite", is_flag=True, help="Replace what exists at --out.")
@json_flag
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    out: Path | None,
    target: str | None,
    variant: str | None,
    settings: tuple[str, ...],
    clip: bool,
    tolerance: float | None,
    dry_run: bool,
    name: str | None,
    licence: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a bundle from RUN (needs torch), or with --target the files that a target runs from BUNDLE (does not).

    A BUNDLE without --target becomes a bundle of the same weights whose FP32 graphs this version exports again. The
    result is compared with its source; nothing is written when they differ.
    """
    if target is None:
        if dry_run or variant or settings or clip or tolerance:
            raise click.UsageError("--variant, --set, --clip, --tolerance and --dry-run need --target")
        if out is None:
            raise click.UsageError("give --target for a target's files, or --out for a bundle's folder")
        _show_bundle(_write_bundle(source, out, name=name, licence=licence, overwrite=overwrite), as_json=as_json)
        return
    if licence is not None:
        raise click.UsageError("--licence belongs to a bundle's weights: leave out --target")
    if (Path(source) / "run.json").is_file():
        raise click.UsageError("targets are made from a BUNDLE; export the RUN to a bundle first, without --target")
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.dry_run import plan_target
    from fer_edge.export.selection import choose_target
    from fer_edge.export.target import export_target

    bundle = Bundle.open(source)
    if dry_run:
        with progress(f"planning {target}"):
            plan = plan_target(bundle, target=target, variant=variant, settings=settings, clip=clip)
        _show_plan(plan, as_json=as_json)
        ctx.exit(1 if plan.refused else 0)
    chosen = choose_target(target)
    folder = out or Path(f"{bundle.manifest.name}-{Path(chosen).stem if chosen.endswith('.toml') else chosen}")
    with progress(f"exporting to {chosen}") as bar:
        report = export_target(
            bundle,
            target=chosen,
            out=folder,
            variant=variant,
            settings=settings,
            clip=clip,
            tolerance=tolerance,
            overwrite=overwrite,
            progress=_shown_on(bar),
        )
    _show_report(report, folder, as_json=as_json)


def _shown_on(bar: ProgressBar) -> Callable[[str, int, int], None]:
    def show(text: str, done: int, total: int) -> None:
        bar(text, done, total)

    return show


def _write_bundle(source: str, out: Path, *, name: str | None, licence: str | None, overwrite: bool) -> Bundle:
    from fer_edge.core.errors import require

    for package in ("torch", "onnx", "onnxruntime"):
        require(package, needed_by="fer-edge export of a bundle", extra="train")
    if (Path(source) / "run.json").is_file():
        from fer_edge.export.from_torch.run import export_run
        from fer_edge.train.run_folder import TrainRun

        run = TrainRun.open(Path(source))
        with progress("exporting"):
            return export_run(run, out, name=name, licence=licence, overwrite=overwrite)
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.from_torch.reexport import reexport_bundle

    given = Bundle.open(source)
    with progress("exporting"):
        return reexport_bundle(given, out, name=name, licence=licence, overwrite=overwrite)


def _show_bundle(bundle: Bundle, *, as_json: bool) -> None:
    variant = bundle.manifest.variants[0]
    if as_json:
        emit_json({"bundle": str(bundle.path), "sha256": bundle.sha256, "manifest": bundle.manifest.to_json()})
        return
    rows = [
        (
            part,
            f"{file.size_bytes / 1e6:.2f} MB",
            f"{file.parameters:,}",
            _macs(file),
            _difference(variant, part),
        )
        for part, file in (("encoder", variant.encoder), ("head", variant.head))
    ]
    columns = ("graph", "size", "parameters", "MACs", "largest difference to torch")
    print_table(columns, rows, title=f"{bundle.path}: fp32", right=columns[1:])


def _macs(file: GraphFile) -> str | None:
    return None if file.macs is None else f"{file.macs / 1e6:.1f} M"


def _difference(variant: Variant, part: str) -> str:
    return f"{variant.parity[part]['max_abs_diff']:.1e}"


def _show_report(report: TargetReport, folder: Path, *, as_json: bool) -> None:
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


def _show_plan(plan: TargetPlan, *, as_json: bool) -> None:
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
        print_findings([plan.preflight], title="pre-flight")
    click.echo()
    click.echo("would be refused:" if plan.refused else "would be written; nothing was")
    for refusal in plan.refusals:
        click.echo(f"  - {refusal}")


def _agreement(parity: Parity) -> str:
    labels = "" if parity.label_agreement is None else f", same label {parity.label_agreement:.1%}"
    return f"largest difference {parity.max_abs_diff:.2g}{labels}"
