"""`fer-edge export`: a training run to a bundle, or a bundle to what a target runs, or to a bundle of graphs anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import ProgressBar, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.manifest import GraphFile, Variant


@click.command(name="export")
@click.argument("source", metavar="RUN|BUNDLE", required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write: the bundle of a RUN or BUNDLE, or the files of a target (NAME-TARGET by default).",
)
@click.option("--target", help="Write what this target runs from a BUNDLE: auto, a target's name, or a recipe's path.")
@click.option("--variant", help="With --target: the variant to take; the recipe's choice by default.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="With --target: change a value of its recipe."
)
@click.option("--clip", is_flag=True, help="With --target: also the fused graph from a whole clip to its logits.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0, min_open=True), help="With --target: largest difference that passes."
)
@click.option("--dry-run", is_flag=True, help="Write nothing; with --target print what would be written, or why not.")
@click.option(
    "--check", is_flag=True, help="Print which TensorRT would take a BUNDLE's graphs (or --target's), with no GPU."
)
@click.option(
    "--parity",
    is_flag=True,
    help="Hold torch, ONNX, INT8 and every engine here, or --target's files, against each other.",
)
@click.option("--data", metavar="SPEC", help="With --parity: real faces of this data set instead of generated ones.")
@click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --data: the rows that a calibration's sample list names.",
)
@click.option(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --parity: compute in torch what this training run computes, instead of what it recorded.",
)
@click.option("--targets", "list_targets", is_flag=True, help="Print the targets there are, and stop.")
@click.option("--name", help="The bundle's name: by default a RUN's folder, a BUNDLE's own name.")
@click.option("--overwrite", is_flag=True, help="Replace what stands at --out.")
@json_flag
@click.pass_context
def command(
    ctx: click.Context,
    source: str | None,
    out: Path | None,
    target: str | None,
    variant: str | None,
    settings: tuple[str, ...],
    clip: bool,
    tolerance: float | None,
    dry_run: bool,
    check: bool,
    parity: bool,
    data: str | None,
    rows: Path | None,
    run: Path | None,
    list_targets: bool,
    name: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a bundle of a training RUN (needs torch), or with --target what an engine runs from a BUNDLE (does not).

    A BUNDLE with --out alone becomes a bundle of the same weights whose FP32 graphs this version has made; INT8 is for
    fer-edge calibrate to make again.

    Always the result is compared with what it came from, and nothing is written when they differ. With --check or
    --dry-run nothing is written at all, and the exit code is 1 where something would be refused.

    --parity compares stage by stage and writes the verdict into the BUNDLE's manifest; the exit code is 1 where a stage
    fails, and the layer at which it parts is named.
    """
    if list_targets:
        _show_targets(as_json=as_json)
        return
    if source is None:
        raise click.UsageError("name a RUN or a BUNDLE, or pass --targets to see the targets")
    if not parity and (data or rows or run):
        raise click.UsageError("--data, --rows and --run belong to --parity")
    if (Path(source) / "run.json").is_file():
        if target is not None or check or dry_run or parity or variant or settings or clip or tolerance:
            raise click.UsageError("targets are made from a BUNDLE; export the RUN to a bundle first, with --out alone")
        if out is None:
            raise click.UsageError("exporting a RUN needs --out, the bundle's folder")
        _show_bundle(_write_bundle(source, out, name=name, overwrite=overwrite), as_json=as_json)
        return
    if parity and check:
        raise click.UsageError("--parity and --check are two commands: give one of them")
    if parity and (out or clip or tolerance):
        raise click.UsageError("--parity writes into the BUNDLE, by limits of its own: no --out, --clip or --tolerance")
    if rows and not data:
        raise click.UsageError("--rows needs --data, the data set of the rows")
    if check and dry_run:
        raise click.UsageError("--check and --dry-run exclude each other: the dry run checks too")
    if target is None and not check and not parity:
        if out is None or dry_run or variant or settings or clip or tolerance:
            raise click.UsageError(
                f"{source} is no training run (it holds no run.json); a BUNDLE needs --target, or --out alone for its "
                "FP32 graphs anew"
            )
        _show_bundle(_write_bundle(source, out, name=name, overwrite=overwrite), as_json=as_json)
        return
    from fer_edge.core.bundle import Bundle

    bundle = Bundle.open(source)
    if parity:
        from fer_edge.cli.parity import check_parity

        chosen_variants = (variant,) if variant else ()
        check_parity(
            bundle,
            variants=chosen_variants,
            target=target,
            settings=settings,
            data=data,
            rows=rows,
            run=run,
            dry_run=dry_run,
            as_json=as_json,
        )
        return
    if check:
        accepted = _check(bundle, target, variant, settings, clip=clip, as_json=as_json)
        ctx.exit(0 if accepted else 1)
    assert target is not None
    if dry_run:
        refused = _dry_run(bundle, target, variant, settings, clip=clip, as_json=as_json)
        ctx.exit(1 if refused else 0)
    from fer_edge.cli.targets import show_report
    from fer_edge.export.choose import choose_target
    from fer_edge.export.targets import export_target

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
    show_report(report, folder, as_json=as_json)


def _check(
    bundle: Bundle, target: str | None, variant: str | None, settings: Sequence[str], *, clip: bool, as_json: bool
) -> bool:
    from fer_edge.cli.targets import show_verdicts
    from fer_edge.export.preflight import ROWS, check_bundle, job_findings

    with progress("checking the graphs"):
        if target is None or target in ROWS:
            rows = ROWS if target is None else (target,)
            verdicts = check_bundle(bundle, rows=rows, variants=(variant,) if variant else ())
        else:
            from fer_edge.export.targets import target_job

            job = target_job(bundle, target=target, variant=variant, settings=settings, clip=clip)
            verdicts = (job_findings(job),)
    show_verdicts(verdicts, as_json=as_json)
    return all(verdict.accepted for verdict in verdicts)


def _dry_run(
    bundle: Bundle, target: str, variant: str | None, settings: Sequence[str], *, clip: bool, as_json: bool
) -> bool:
    from fer_edge.cli.targets import show_plan
    from fer_edge.export.plan import plan_target

    with progress(f"planning {target}"):
        plan = plan_target(bundle, target=target, variant=variant, settings=settings, clip=clip)
    show_plan(plan, as_json=as_json)
    return plan.refused


def _show_targets(*, as_json: bool) -> None:
    from fer_edge.export.choose import target_names
    from fer_edge.export.recipe import load_target

    recipes = {name: load_target(name) for name in target_names()}
    if as_json:
        emit_json({name: {"summary": each.summary, "precision": each.precision} for name, each in recipes.items()})
        return
    rows = [(name, each.summary, each.precision, each.variant) for name, each in recipes.items()]
    print_table(("target", "what it is", "precision", "variant"), rows)


def _shown_on(bar: ProgressBar) -> Callable[[str, int, int], None]:
    def show(text: str, done: int, total: int) -> None:
        bar(text, done, total)

    return show


def _write_bundle(source: str, out: Path, *, name: str | None, overwrite: bool) -> Bundle:
    """A bundle of a RUN's network, or of a BUNDLE's own."""
    from fer_edge.core.errors import require

    for package in ("torch", "onnx", "onnxruntime"):
        require(package, needed_by="fer-edge export of a training run, or of a bundle's graphs anew", extra="train")
    if (Path(source) / "run.json").is_file():
        from fer_edge.export.from_torch.run import export_run
        from fer_edge.train.run import TrainRun

        run = TrainRun.open(Path(source))
        with progress("exporting"):
            return export_run(run, out, name=name, overwrite=overwrite)
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.from_torch.bundle import export_again

    given = Bundle.open(source)
    with progress("exporting"):
        return export_again(given, out, name=name, overwrite=overwrite)


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
