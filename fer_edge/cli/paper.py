"""`fer-edge paper`: the systems of the paper's tables, trained and evaluated under one protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

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
_PUBLISH_EVERY_S: Final = 60.0  # resampling takes seconds, so short trainings do not publish one by one


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
    data: Annotated[str, opt.dataset("Data set to train and compare on.")],
    out: Annotated[Path, opt.option("Folder of the study.", metavar="FOLDER", required=True)],
    target: Annotated[Path | None, opt.option("Tables.  [default: OUT/report]", name="--report", metavar="FOLDER")],
    recipe: Annotated[str, opt.recipe("stills")],
    settings: Annotated[tuple[str, ...], opt.settings("train.optimiser.epochs=30")],
    only: Annotated[tuple[str, ...], opt.option("Systems or groups: tables, beyond, lstm, size.", metavar="NAME")],
    budget: opt.Budget,
    device: opt.Device,
    private_log: opt.PrivateLog,
    json_out: Path | None,
) -> None:
    """Train and compare the systems of the paper's tables, and systems beyond them.

    The same command continues an interrupted study; --report always holds what is finished. Nothing is selected on
    PrivateTest; each evaluation on it is logged.
    """
    from fer_edge.core.json import encode

    require_training("fer-edge paper", "scipy")
    from fer_edge.core.files import writing
    from fer_edge.paper.recipe import StudyRecipe
    from fer_edge.paper.study import StudyOptions, plan_runs, publish_study, read_runs, run_study
    from fer_edge.paper.systems import SYSTEMS, chosen_systems

    protocol = read_recipe(StudyRecipe, recipe, settings, room="paper")
    plan = plan_runs(chosen_systems(only or SYSTEMS), protocol)
    folder = target or out / "report"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = read_dataset(data)
    # The tables hold all runs of --out, whatever --only names: a foreign run is refused before training.
    read_runs(out, plan_runs(chosen_systems(SYSTEMS), protocol), protocol, dataset)

    def publish() -> StudyReport:
        return publish_study(out, protocol, dataset, folder, recipe_name=recipe, command=command_line())

    with note_resume(f"to continue, repeat the command; the study is in {out}"), progress("study") as bar:
        view = _StudyView(bar, publish)
        seconds = None if budget is None else 60 * budget
        study = StudyOptions(budget_s=seconds, device=device, private_log=private_log)
        results = run_study(plan, protocol, data, out, study, progress=view)
        report = publish()
    value = {"out": str(out), "report": str(folder), "planned": len(plan), "finished": len(results)}
    caption = f"{len(results)} of {len(plan)} trainings; {folder}/README.md"
    show({**value, **encode(report)}, json_out, [_table(report, caption)])


def _table(report: StudyReport, caption: str) -> Table:
    from fer_edge.paper.page import change, probability, spread
    from fer_edge.paper.systems import SYSTEMS

    pairs = {pair.system: pair for pair in report.pairs}
    split = report.systems[0].best_split.split if report.systems else ""
    return Table.of(
        report.systems,
        {
            "system": lambda system: SYSTEMS[system.name].title,
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
