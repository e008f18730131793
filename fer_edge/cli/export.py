"""`fer-edge export`: a training run to a bundle, or a bundle to what a target runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.bundle import Bundle
    from fer_edge.export.targets import TargetReport
    from fer_edge.manifest import GraphFile, Variant


@click.command(name="export")
@click.argument("source", metavar="RUN|BUNDLE")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write: the bundle of a RUN (required), or the files of a target (NAME-TARGET by default).",
)
@click.option("--target", help="Write what this target runs from a BUNDLE: auto, cpu or openvino.")
@click.option("--variant", help="With --target: the variant to take; the recipe's choice by default.")
@click.option("--clip", is_flag=True, help="With --target: also the fused graph from a whole clip to its logits.")
@click.option("--name", help="With a RUN: the bundle's name; the folder's by default.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at --out.")
@json_flag
def command(
    source: str,
    out: Path | None,
    target: str | None,
    variant: str | None,
    clip: bool,
    name: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a bundle of a training RUN (needs torch), or with --target what an engine runs from a BUNDLE (does not).

    Either way the result is compared with what it came from, and nothing is written when they differ.
    """
    if (Path(source) / "run.json").is_file():
        if target is not None:
            raise click.UsageError("--target takes a BUNDLE; export the RUN to a bundle first, with --out")
        if out is None:
            raise click.UsageError("exporting a RUN needs --out, the bundle's folder")
        _show_bundle(_export_run(Path(source), out, name=name, overwrite=overwrite), as_json=as_json)
        return
    if target is None:
        raise click.UsageError(f"{source} is no training run (it holds no run.json); a BUNDLE needs --target")
    from fer_edge.bundle import Bundle
    from fer_edge.export.targets import choose_target, export_target

    bundle, chosen = Bundle.open(source), choose_target(target)
    folder = out or Path(f"{bundle.manifest.name}-{chosen}")
    with progress(f"exporting to {chosen}"):
        report = export_target(bundle, target=chosen, out=folder, variant=variant, clip=clip, overwrite=overwrite)
    _show_target(report, folder, as_json=as_json)


def _export_run(source: Path, out: Path, *, name: str | None, overwrite: bool) -> Bundle:
    from fer_edge.errors import require

    for package in ("torch", "onnx", "onnxruntime"):
        require(package, needed_by="fer-edge export of a training run", extra="train")
    from fer_edge.export.from_run import export_run
    from fer_edge.train.run import TrainRun

    run = TrainRun.open(source)
    with progress("exporting"):
        return export_run(run, out, name=name, overwrite=overwrite)


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


def _show_target(report: TargetReport, folder: Path, *, as_json: bool) -> None:
    if as_json:
        emit_json({"folder": str(folder), **report.to_json()})
        return
    rows = [(file.name, f"{file.size_bytes / 1e6:.2f} MB", file.sha256[:16]) for file in report.files]
    print_table(
        ("file", "size", "sha256"),
        rows,
        title=f"{folder}: {report.bundle} {report.variant} for {report.target}, {report.provider}",
        caption=_agreement(report),
        right=("size",),
    )


def _agreement(report: TargetReport) -> str:
    if report.parity is None:
        return f"not run: {report.not_run}"
    agreement = "–" if report.parity.label_agreement is None else f"{report.parity.label_agreement:.1%}"
    return f"largest logit difference {report.parity.max_abs_diff:.2g}, same label {agreement}"
