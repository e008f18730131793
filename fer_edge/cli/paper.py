"""`fer-edge paper`: the paper's tables, trained and evaluated under one protocol."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fer_edge.cli.console import console, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.result import RunResult
    from fer_edge.paper.systems import System

_STAGES = {"frames": "training", "features": "contexts", "classifier": "behind the LDA"}


class _StudyView:
    """A bar for the study and one for every run under way; a line for each that ends."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._study = display.add_task("study", total=None)
        self._runs: dict[str, TaskID] = {}

    def planned(self, *, finished: int, total: int) -> None:
        self._display.update(self._study, completed=finished, total=total)
        console.print(f"{total} trainings, {finished} of them finished already")

    def step(self, run: str, stage: str, done: int, total: int) -> None:
        text = f"{run}: {_STAGES.get(stage, stage)}"
        if run not in self._runs:
            self._runs[run] = self._display.add_task(text, total=total)
        self._display.update(self._runs[run], description=text, completed=done, total=total)

    def finished(self, run: str, result: RunResult) -> None:
        if run in self._runs:
            self._display.remove_task(self._runs.pop(run))
        self._display.advance(self._study)
        top1 = float(result.choose.right[~result.choose.leaked].mean())
        console.print(f"{run}: {result.choose.split} without leaked rows {top1:.2%}, {result.seconds:.0f} s")


@contextlib.contextmanager
def _view() -> Iterator[_StudyView]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        yield _StudyView(display)


@click.command(name="paper")
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    metavar="SPEC",
    help="fer2013:PATH; give ckplus:PATH (or ckplus:PATH?labels=official) as well for the rows on CK+.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The study's folder.")
@click.option("--recipe", default="stills", show_default=True, help="The protocol: a shipped recipe or a TOML file.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change it: train.optimiser.epochs=30.")
@click.option("--only", multiple=True, metavar="NAME", help="Systems or groups: tables, beyond, lstm, size.")
@click.option("--jobs", default=1, show_default=True, help="Trainings at once, each on its share of the cores.")
@click.option("--budget", type=float, metavar="MINUTES", help="Begin no training after this time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--private-log", type=click.Path(dir_okay=False, path_type=Path), help="Where looks at PrivateTest go.")
@json_flag
def command(
    sources: tuple[str, ...],
    out: Path,
    recipe: str,
    settings: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int,
    budget: float | None,
    device: str,
    private_log: Path | None,
    as_json: bool,
) -> None:
    """Train and evaluate the systems of the paper's tables, and what goes beyond them.

    Every training is a file in --out; the same command goes on where it was broken off.
    """
    from fer_edge.errors import require

    for package in ("torch", "safetensors", "sklearn"):
        require(package, needed_by="fer-edge paper", extra="train")
    data, posed = _told_apart(sources)
    from fer_edge.data import load_dataset
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.study import plan_runs, run_study
    from fer_edge.paper.systems import SYSTEMS, chosen_systems
    from fer_edge.recipes import load_recipe, override

    protocol = override(load_recipe(StudyRecipe, recipe, room="paper"), settings)
    chosen, begun = chosen_systems(only or SYSTEMS), time.monotonic()
    plan = plan_runs(chosen, protocol)
    for spec in (data, *posed):
        with progress(f"reading {spec}") as bar:
            load_dataset(spec, progress=bar)
    try:
        with _view() as view:
            results = run_study(
                plan,
                protocol,
                data,
                out,
                jobs=jobs,
                budget_s=None if budget is None else 60 * budget,
                device=device,
                private_log=private_log,
                progress=view,
            )
            for spec in posed:
                remaining_s = None if budget is None else max(0.0, 60 * budget - (time.monotonic() - begun))
                _run_on_ckplus(protocol, spec, out, remaining_s, device, chosen, view)
    except KeyboardInterrupt:
        console.print(f"the same command goes on in {out}")
        raise
    if not posed:
        _write_not_run(protocol, out)
    rows = [
        (run.name, result.epochs, f"{result.choose.right[~result.choose.leaked].mean():.2%}", f"{result.seconds:.0f}")
        for run in plan
        if (result := results.get(run.name)) is not None
    ]
    if as_json:
        emit_json({"out": str(out), "planned": len(plan), "finished": len(rows)})
        return
    columns = ("run", "epochs", "choose top-1 without leaked", "seconds")
    print_table(columns, rows, title=f"{out}: {len(rows)} of {len(plan)} trainings", right=columns[1:])


def _told_apart(sources: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The data set of the tables, and CK+ with one or the other set of labels."""
    posed = tuple(spec for spec in sources if spec.startswith("ckplus:"))
    others = [spec for spec in sources if spec not in posed]
    if len(others) != 1:
        raise click.UsageError("give one --data for the tables, such as fer2013:PATH; only ckplus:PATH may be added.")
    return others[0], posed


def _run_on_ckplus(
    protocol: StudyRecipe,
    spec: str,
    out: Path,
    budget_s: float | None,
    device: str,
    chosen: tuple[System, ...],
    view: _StudyView,
) -> None:
    from fer_edge.data import load_dataset
    from fer_edge.paper.ckplus import CKPLUS_SYSTEMS, run_ckplus
    from fer_edge.paper.ckplus_table import ckplus_report, write_ckplus

    systems = tuple(system for system in CKPLUS_SYSTEMS if system in chosen)
    results = run_ckplus(protocol, spec, out, systems=systems, budget_s=budget_s, device=device, progress=view)
    whole = load_dataset(spec).layout == "cohn-kanade"
    names = [system.name for system in systems]
    write_ckplus(ckplus_report(results, folds=protocol.ckplus.folds, systems=names, whole=whole), out)


def _write_not_run(protocol: StudyRecipe, out: Path) -> None:
    from fer_edge.paper.ckplus import CKPLUS_SYSTEMS
    from fer_edge.paper.ckplus_table import ckplus_report, write_ckplus

    names = [system.name for system in CKPLUS_SYSTEMS]
    write_ckplus(ckplus_report({}, folds=protocol.ckplus.folds, systems=names), out)
