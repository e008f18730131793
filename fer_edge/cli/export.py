"""`fer-edge export`: a training run or a bundle becomes a bundle, or a bundle becomes a target's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.check import findings_table
from fer_edge.cli.console import progress, show
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.parity.outputs import Parity
    from fer_edge.export.target import TargetPlan, TargetReport

__all__ = ["command"]


@opt.make_command
def command(
    source: Annotated[str, opt.argument(metavar="RUN|BUNDLE")],
    out: Annotated[Path | None, opt.option("Folder to write.  [--target: NAME-TARGET]", opt.OUTPUT_FOLDER)],
    name: Annotated[str | None, opt.option("Name of the bundle.  [default: the name of RUN or BUNDLE]")],
    licence: Annotated[str | None, opt.option("Licence of the weights.  [default: that of known data]")],
    target: Annotated[str | None, opt.option("Write what this target runs: auto, a name, or a recipe.")],
    variant: Annotated[str | None, opt.option("Variant of the target's files.  [default: the recipe's]")],
    settings: Annotated[tuple[str, ...], opt.settings("precision=fp32")],
    clip: Annotated[bool, opt.flag("Also write the fused graph of a whole clip.")],
    dry_run: Annotated[bool, opt.flag("Print what would be written, or why not.")],
    json_out: Path | None,
) -> None:
    """Make a bundle from RUN (needs torch), or with --target the files that a target runs from BUNDLE (does not).

    A BUNDLE without --target becomes a bundle of the same weights whose FP32 graphs this version exports again. The
    result is compared with its source; nothing is written when they differ. --variant, --set, --clip and --dry-run
    belong to --target.
    """
    if target is None:
        if dry_run or variant or settings or clip:
            raise click.UsageError("--variant, --set, --clip and --dry-run need --target")
        if out is None:
            raise click.UsageError("give --target for a target's files, or --out for a bundle's folder")
        bundle = _write_bundle(source, out, name=name, licence=licence)
        value = {"bundle": str(bundle.path), "sha256": bundle.sha256, "manifest": bundle.manifest.to_json()}
        show(value, json_out, [_bundle_table(bundle)])
        return
    if licence is not None:
        raise click.UsageError("--licence belongs to a bundle's weights; leave out --target")
    if (Path(source) / "run.json").is_file():
        raise click.UsageError("targets are made from a BUNDLE; export the RUN to a bundle first, without --target")
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.json import encode
    from fer_edge.export.job import target_job
    from fer_edge.export.selection import choose_target
    from fer_edge.export.target import TargetPlan, export_target

    bundle = Bundle.open(source)
    if dry_run:
        with progress(f"planning {target}"):
            plan = TargetPlan(target_job(bundle, target=target, variant=variant, settings=settings, clip=clip))
        show(plan.to_json(), json_out, _plan_parts(plan))
        click.get_current_context().exit(1 if plan.errors else 0)
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
            overwrite=opt.overwriting(),
            progress=bar,
        )
    show({"folder": str(folder), **encode(report)}, json_out, [_files_table(report, folder)])


def _write_bundle(source: str, out: Path, *, name: str | None, licence: str | None) -> Bundle:
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.errors import require

    for package in ("torch", "onnx", "onnxruntime"):
        require(package, needed_by="fer-edge export of a bundle", extra="train")
    from fer_edge.export.from_torch.reexport import reexport_bundle
    from fer_edge.export.from_torch.run import export_run
    from fer_edge.train.run_folder import TrainRun

    with progress(f"exporting {source}"):
        if (Path(source) / "run.json").is_file():
            run = TrainRun.open(Path(source))
            return export_run(run, out, name=name, licence=licence, overwrite=opt.overwriting())
        return reexport_bundle(Bundle.open(source), out, name=name, licence=licence, overwrite=opt.overwriting())


def _bundle_table(bundle: Bundle) -> Table:
    variant = bundle.manifest.variants[0]
    return Table.of(
        variant.parts.items(),
        {
            "graph": lambda each: each[0],
            "MB": lambda each: f"{each[1].size_bytes / 1e6:.2f}",
            "parameters": lambda each: f"{each[1].parameters:,}",
            "MACs": lambda each: None if each[1].macs is None else f"{each[1].macs / 1e6:.1f} M",
            "max diff to torch": lambda each: f"{variant.parity[each[0]]['max_abs_diff']:.1e}",
        },
        title=f"{bundle.path}: fp32",
    )


def _files_table(report: TargetReport, folder: Path) -> Table:
    checked = [f"graphs after {', '.join(report.passes)}: {_agreement(report.graphs)}"] if report.graphs else []
    checked.append(f"files: {_agreement(report.parity)}" if report.parity else f"files not run: {report.not_run}")
    return Table(
        columns=("file", "MB", "sha256"),
        rows=[(file.name, f"{file.size_bytes / 1e6:.2f}", file.sha256[:16]) for file in report.files],
        title=f"{folder}: {report.bundle} {report.variant} ({report.precision}) for {report.target}, {report.provider}",
        caption="\n".join(checked),
    )


def _plan_parts(plan: TargetPlan) -> Iterator[Table | str]:
    job = plan.job
    yield Table(
        columns=("file", "graph", "precision", "remark"),
        rows=[(file.name, file.part, file.precision, file.remark) for file in plan.files],
        title=f"{job.name}: {job.recipe.summary}. Would write {job.variant} in {job.computes_in}:",
        caption=f"passes: {', '.join(job.passes) or 'none'}",
    )
    yield ""
    yield Table(
        columns=("graph", "input", "smallest", "tuned for", "largest"),
        rows=[
            (part, name, shape.min, shape.opt, shape.max)
            for part, inputs in job.shapes.items()
            for name, shape in inputs.items()
        ],
    )
    if plan.preflight.findings:
        yield ""
        yield findings_table([plan.preflight])
    yield ""
    yield "would be refused:" if plan.errors else "dry run: would be written; nothing was"
    yield from (f"  - {refusal}" for refusal in plan.refusals)


def _agreement(parity: Parity) -> str:
    labels = "" if parity.label_agreement is None else f", same label {parity.label_agreement:.1%}"
    return f"largest difference {parity.max_abs_diff:.2g}{labels}"
