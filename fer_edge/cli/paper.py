"""`fer-edge paper`: the paper's tables, trained and evaluated under one protocol."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fer_edge.cli.console import console, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.paper.results import RunResult
    from fer_edge.paper.summary import StudyReport

_STAGES = {"frames": "training", "features": "contexts", "classifier": "behind the LDA"}

_REPORT_EVERY_S: Final = 60.0  # drawing takes seconds; where trainings take no more, not every one is reported at once


class _StudyView:
    """A bar for the study and one for every run under way; a line and a report for each that ends."""

    def __init__(self, display: Progress, publish: Callable[[], object]) -> None:
        self._publish = publish
        self._published_s = time.monotonic() - _REPORT_EVERY_S
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
        if time.monotonic() - self._published_s >= _REPORT_EVERY_S:
            self._publish()
            self._published_s = time.monotonic()


def _told_apart(sources: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The data set of the tables, and CK+ with one set of labels or both."""
    posed = tuple(spec for spec in sources if spec.startswith("ckplus:"))
    others = [spec for spec in sources if spec not in posed]
    if len(others) != 1:
        raise click.UsageError("give one --data for the tables, such as fer2013:PATH; only ckplus:PATH may be added.")
    return others[0], posed


@contextlib.contextmanager
def _view(publish: Callable[[], object]) -> Iterator[_StudyView]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        yield _StudyView(display, publish)


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
@click.option(
    "--report",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where tables and drawings go, after every training anew; OUT/report by default.",
)
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
    target: Path | None,
    recipe: str,
    settings: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int,
    budget: float | None,
    device: str,
    private_log: Path | None,
    as_json: bool,
) -> None:
    """Train and compare the systems of the paper's tables, and what goes beyond them.

    Every training is a file in --out; the same command goes on where it was broken off, and what is finished stands in
    the tables at any time. On CK+ the systems are trained with one fold of subjects after the other held out, from
    scratch and from their FER2013 weights, the complete one on whole sequences as well. In the end median filter and
    contrast normalisation are measured under noise and in poor light. Each training's look at FER2013's PrivateTest,
    which nothing is chosen on, goes on record.
    """
    from fer_edge.core.errors import require

    data, posed = _told_apart(sources)
    for package in ("torch", "safetensors", "sklearn", "scipy"):
        require(package, needed_by="fer-edge paper", extra="train")
    require("matplotlib", needed_by="fer-edge paper", extra="report")
    from fer_edge.core.files import writing
    from fer_edge.core.recipes import load_recipe, override
    from fer_edge.data import load_dataset
    from fer_edge.paper.ckplus import CKPLUS_SYSTEMS, load_ckplus, run_ckplus
    from fer_edge.paper.publish import measure_trained, publish_study
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.study import plan_runs, read_runs, run_study
    from fer_edge.paper.systems import SYSTEMS, chosen_systems

    protocol = override(load_recipe(StudyRecipe, recipe, room="paper"), settings)
    chosen, begun = chosen_systems(only or SYSTEMS), time.monotonic()
    plan = plan_runs(chosen, protocol)
    folder = target or out / "report"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    for spec in posed:
        with progress(f"reading {spec}") as bar:
            load_ckplus(spec, progress=bar)
    # The tables hold all that lies in --out, whatever --only says: what does not belong there is told before training.
    read_runs(out, plan_runs(chosen_systems(SYSTEMS), protocol), protocol, dataset)
    told = shlex.join(["fer-edge", *sys.argv[1:]])

    def publish() -> StudyReport:
        return publish_study(out, protocol, dataset, folder, recipe_name=recipe, command=told)

    try:
        with _view(publish) as view:
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
                run_ckplus(
                    protocol,
                    spec,
                    out,
                    systems=tuple(system for system in CKPLUS_SYSTEMS if system in chosen),
                    budget_s=None if budget is None else max(0.0, 60 * budget - (time.monotonic() - begun)),
                    device=device,
                    progress=view,
                )
        with progress("preprocessing under noise") as bar:
            measure_trained(out, protocol, dataset, private_log=private_log, progress=bar)
    except KeyboardInterrupt:
        console.print(f"the same command goes on in {out}")
        raise
    with console.status("tables and drawings"):
        report = publish()
    if as_json:
        rows = _rows(report)
        emit_json(
            {"out": str(out), "report": str(folder), "planned": len(plan), "finished": len(results), "rows": rows}
        )
    else:
        _print(report, f"{len(results)} of {len(plan)} trainings; {folder}/README.md")


def _rows(report: StudyReport) -> list[dict[str, Any]]:
    pairs = {pair.system: pair for pair in report.pairs}
    rows = []
    for system in report.systems:
        shown, pair = system.best_split, pairs.get(system.name)
        rows.append(
            {
                "system": system.name,
                "seeds": list(system.seeds),
                "split": shown.split,
                "top1": shown.top1.mean,
                "top1_sd": shown.top1.sd,
                "macro_f1": shown.macro_f1.mean,
                "difference": None if pair is None else pair.report.difference,
                "interval": None if pair is None else [pair.report.low, pair.report.high],
                "p_holm": None if pair is None else pair.p_holm,
            }
        )
    return rows


def _print(report: StudyReport, caption: str) -> None:
    from fer_edge.paper.report_tables import change, probability, spread

    pairs = {pair.system: pair for pair in report.pairs}
    rows = []
    for system in report.systems:
        shown, pair = system.best_split, pairs.get(system.name)
        rows.append(
            (
                system.title,
                len(system.seeds),
                spread(shown.top1),
                spread(shown.macro_f1),
                None if pair is None else change(pair.report),
                None if pair is None else probability(pair.p_holm),
            )
        )
    split = report.systems[0].best_split.split if report.systems else ""
    columns = ("system", "seeds", f"{split} top-1 %", "F1 %", "Δ to the complete one, points [95 %]", "p (Holm)")
    print_table(columns, rows, caption=caption, right=columns[1:])
