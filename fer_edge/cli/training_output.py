"""What `fer-edge train`, `prune` and `qat` print: progress, and the summary of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fer_edge.cli.console import console, note_resume, progress, show
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.core.types import Progress
    from fer_edge.train.loop import EpochReport
    from fer_edge.train.run_folder import RunOptions, TrainRun

__all__ = ["run_progress", "show_run", "training_in"]

_STAGES = {
    "importance": "ranking filters",
    "frames": "frame encoder",
    "teachers": "teacher predictions",
    "features": "encoding clips",
    "sequences": "encoding sequences",
    "clips": "evaluating clips",
    "context": "sequence context",
    "classifier": "after the LDA",
}
_SUMMARY = (
    "choose", "top1_by_window", "temperature", "seconds", "parent", "pruning", "qat", "quantised", "init",
    "teacher", "fold", "frames_top1", "data", "versions",
)  # fmt: skip


class _Reporter:
    """Draws one bar, and prints one line per epoch."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def step(self, stage: str, done: int, total: int) -> None:
        self._bar(_STAGES.get(stage, stage), done, total)

    def epoch(self, report: EpochReport) -> None:
        """Print a line: an `OnEpoch`."""
        line = f"{_STAGES.get(report.stage, report.stage)}: epoch {report.epoch}, loss {report.loss:.4f}"
        if report.score is not None:
            line += f", choose top-1 {report.score:.2%} (best {report.best_score:.2%})"
        console.print(line)


@contextlib.contextmanager
def run_progress() -> Iterator[_Reporter]:
    """Report the progress of a training on stderr."""
    with progress("training") as bar:
        yield _Reporter(bar)


@contextlib.contextmanager
def training_in(out: Path, *, resume: bool, device: str) -> Iterator[RunOptions]:
    """Report the progress of a training in `out`, and how to resume it where it is interrupted."""
    from fer_edge.train.run_folder import RunOptions

    note = f"to continue, repeat the command with --resume; the run is in {out}"
    with note_resume(note), run_progress() as display:
        yield RunOptions(resume=resume, device=device, progress=display.step, on_epoch=display.epoch)


def show_run(run: TrainRun, json_out: Path | None) -> None:
    """Print the summary of a run; of an unfinished one, as further processes return it, only the JSON."""
    record = run.record
    value = {"run": str(run.path), **{key: record[key] for key in _SUMMARY if key in record}}
    show(value, json_out, [_run_table(run)] if run.done else [])


def _run_table(run: TrainRun) -> Table:
    record = run.record
    if fold := record.get("fold"):
        held_out = (f"fold {fold['fold']} of {fold['folds']}, mean of both probes", _rate(record["frames_top1"]))
        return Table(columns=("", Column("value", "right")), rows=[held_out], title=str(run.path))
    choose, windows = record["choose"], record["top1_by_window"]
    rows = [
        (f"{choose['split']} top-1, all {choose['n']:,}", f"{choose['top1']:.2%}"),
        ("  without rows that are in training too", _rate(choose["top1_without_leaked"])),
        ("  macro-F1", f"{choose['macro_f1']:.2%}"),
        ("  expected calibration error", f"{choose['ece']:.4f}"),
        *(
            (f"  top-1 {', T = '.join(name.rsplit('_', 1)).replace('_', ', ')} (without leaked)", f"{value:.2%}")
            for name, value in windows.items()
        ),
    ]
    if crowd := record.get("crowd"):
        people, rejected = crowd["choose"], crowd["choose"]["not_judgeable"]
        rows += [
            (f"crowd: first choice, {people['n_first_choice']:,}", f"{people['first_choice_top1']:.2%}"),
            (f"  majority, {people['n_majority']:,}", _rate(people["majority_top1"])),
            ("  cross-entropy, bits", f"{people['cross_entropy_bits']:.3f}"),
            ("  faces rejected as not judgeable", f"{rejected['faces']:.2%}"),
        ]
    if pruning := record.get("pruning"):
        before, after = pruning["macs_before"], pruning["macs_after"]
        rows.append(("encoder multiply-accumulates", f"{before / 1e6:.1f} M -> {after / 1e6:.1f} M"))
        if "parameters_before" in pruning:  # absent in runs of older versions
            rows.append(("parameters", f"{pruning['parameters_before']:,} -> {pruning['parameters_after']:,}"))
    if rounded := record.get("quantised"):
        rows.append((f"rounded as {rounded['form']}: top-1, all", f"{rounded['choose']['top1']:.2%}"))
        rows.append(
            ("  without rows that are in training too", _rate(rounded["choose"]["top1_without_leaked"])),
        )
    return Table(columns=("", Column("value", "right")), rows=rows, title=str(run.path))


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"
