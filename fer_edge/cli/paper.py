"""`fer-edge paper`: the paper's tables, trained and evaluated under one protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fer_edge.cli.console import console, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.paper.result import RunResult

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

    def finished(self, result: RunResult) -> None:
        run = f"{result.system}-seed{result.seed}"
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
@click.option("--data", required=True, metavar="SPEC", help="The data set, for example fer2013:PATH.")
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
    data: str,
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
    from fer_edge.data import load_dataset
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.study import plan_runs, run_study
    from fer_edge.paper.systems import SYSTEMS, chosen_systems
    from fer_edge.recipes import load_recipe, override

    protocol = override(load_recipe(StudyRecipe, recipe, room="paper"), settings)
    plan = plan_runs(chosen_systems(only or SYSTEMS), protocol)
    with progress("reading the data set") as bar:
        load_dataset(data, progress=bar)
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
    except KeyboardInterrupt:
        console.print(f"the same command goes on in {out}")
        raise
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
