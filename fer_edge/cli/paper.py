"""`fer-edge paper`: the systems of the paper's tables, trained and evaluated under one protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, console, note_resume, progress, show
from fer_edge.cli.inputs import read_dataset, read_recipe, require_training
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.core.types import Progress
    from fer_edge.paper.report import StudyReport
    from fer_edge.paper.results import RunResult

__all__ = ["command"]

_STAGES: Final = {"frames": "training", "features": "contexts", "classifier": "after the LDA"}
_PUBLISH_EVERY_S: Final = 60.0  # drawing takes seconds, so short trainings do not publish one by one


class _StudyView:
    """Draws one bar; prints a line, and publishes the report, when a training ends."""

    def __init__(self, bar: Progress, publish: Callable[[], object]) -> None:
        self._bar = bar
        self._publish = publish
        self._published_s = time.monotonic() - _PUBLISH_EVERY_S

    def planned(self, *, finished: int, total: int) -> None:
        console.print(f"{total} trainings, {finished} of them finished already")

    def step(self, what: str, done: int, total: int) -> None:
        run, _, stage = what.rpartition(": ")
        self._bar(f"{run}: {_STAGES.get(stage, stage)}", done, total)

    def finished(self, run: str, result: RunResult) -> None:
        top1 = float(result.choose.right[~result.choose.leaked].mean())
        console.print(f"{run}: {result.choose.split} without leaked rows {top1:.2%}, {result.seconds:.0f} s")
        if time.monotonic() - self._published_s >= _PUBLISH_EVERY_S:
            self._publish()
            self._published_s = time.monotonic()


@opt.make_command
def command(
    data: Annotated[
        tuple[str, ...],
        opt.option("fer2013:PATH; repeat for ckplus:PATH.", opt.DATA_SPEC, metavar="SPEC", required=True),
    ],
    out: Annotated[Path, opt.option("Folder of the study.", metavar="FOLDER", required=True)],
    target: Annotated[
        Path | None, opt.option("Tables and plots.  [default: OUT/report]", name="--report", metavar="FOLDER")
    ],
    recipe: Annotated[str, opt.recipe("stills")],
    settings: Annotated[tuple[str, ...], opt.settings("train.optimiser.epochs=30")],
    only: Annotated[tuple[str, ...], opt.option("Systems or groups: tables, beyond, lstm, size.", metavar="NAME")],
    jobs: opt.Jobs,
    budget: opt.Budget,
    device: opt.Device,
    private_log: opt.PrivateLog,
    json_out: Path | None,
) -> None:
    """Train and compare the systems of the paper's tables, and systems beyond them.

    The same command continues an interrupted study; --report always holds what is finished. With ckplus:PATH (or
    ckplus:PATH?labels=official) the systems are also cross-validated on CK+, one fold of subjects at a time, from
    scratch and from their FER2013 weights. At the end the median filter and the contrast normalisation are measured
    under noise and in poor light. Nothing is selected on PrivateTest; each evaluation on it is logged.
    """
    from fer_edge.core.errors import require
    from fer_edge.core.json import encode

    spec, posed = _separate(data)
    require_training("fer-edge paper", "scipy")
    require("matplotlib", needed_by="fer-edge paper", extra="report")
    from fer_edge.core.files import writing
    from fer_edge.paper.ckplus import CkPlusStudy, load_ckplus
    from fer_edge.paper.publish import measure_trained, publish_study
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.study import StudyOptions, plan_runs, read_runs, run_study
    from fer_edge.paper.systems import SYSTEMS, chosen_systems

    protocol = read_recipe(StudyRecipe, recipe, settings, room="paper")
    chosen, started = chosen_systems(only or SYSTEMS), time.monotonic()
    plan = plan_runs(chosen, protocol)
    folder = target or out / "report"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = read_dataset(spec)
    posed_sets = []
    for each in posed:
        with progress(f"reading {each}") as bar:
            posed_sets.append(load_ckplus(each, progress=bar))
    # The tables hold all runs of --out, whatever --only names: a foreign run is refused before training.
    read_runs(out, plan_runs(chosen_systems(SYSTEMS), protocol), protocol, dataset)

    def publish() -> StudyReport:
        return publish_study(out, protocol, dataset, folder, recipe_name=recipe, command=command_line())

    with note_resume(f"to continue, repeat the command; the study is in {out}"), progress("study") as bar:
        view = _StudyView(bar, publish)
        budget_s = None if budget is None else 60 * budget
        study = StudyOptions(jobs=jobs, budget_s=budget_s, device=device, private_log=private_log)
        results = run_study(plan, protocol, spec, out, study, progress=view)
        for stills, sequences in posed_sets:
            left_s = None if budget_s is None else max(0.0, budget_s - (time.monotonic() - started))
            ckplus = CkPlusStudy(
                recipe=protocol,
                stills=stills,
                sequences=sequences,
                out=out,
                systems=tuple(system.name for system in chosen if {1, 2} & set(system.tables)),
                device=device,
            )
            ckplus.run(budget_s=left_s, progress=view)
        measure_trained(out, protocol, dataset, private_log=private_log, progress=bar)
        bar("tables and plots", 0, 0)
        report = publish()
    value = {"out": str(out), "report": str(folder), "planned": len(plan), "finished": len(results)}
    caption = f"{len(results)} of {len(plan)} trainings; {folder}/README.md"
    show({**value, **encode(report)}, json_out, [_table(report, caption)])


def _separate(sources: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Separate the data set of the tables from CK+, with one set of labels or both."""
    posed = tuple(spec for spec in sources if spec.startswith("ckplus:"))
    others = [spec for spec in sources if spec not in posed]
    if len(others) != 1:
        raise click.UsageError("give one --data for the tables, such as fer2013:PATH; only ckplus:PATH may be added.")
    return others[0], posed


def _table(report: StudyReport, caption: str) -> Table:
    from fer_edge.paper.report_tables import change, probability, spread

    pairs = {pair.system: pair for pair in report.pairs}
    split = report.systems[0].best_split.split if report.systems else ""
    return Table.of(
        report.systems,
        {
            "system": lambda system: system.title,
            Column("seeds", priority=2): lambda system: len(system.seeds),
            f"{split} top-1 %": lambda system: spread(system.best_split.top1),
            Column("F1 %", priority=1): lambda system: spread(system.best_split.macro_f1),
            Column("Δ points [95 %]", "right"): lambda system: (
                change(pairs[system.name].report) if system.name in pairs else None
            ),
            "p (Holm)": lambda system: probability(pairs[system.name].p_holm) if system.name in pairs else None,
        },
        caption=f"Δ: against the complete system.\n{caption}",
    )
