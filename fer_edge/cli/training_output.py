"""What `fer-edge train`, `prune` and `qat` share: where a run begins, its progress, and its summary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fer_edge.cli.console import console, print_table

if TYPE_CHECKING:
    from fer_edge.train.train import Origin

__all__ = ["open_origin", "print_run", "run_progress", "run_summary"]

_STAGES = {
    "importance": "ranking filters",
    "frames": "frame encoder",
    "teachers": "asking the teachers",
    "features": "encoding clips",
    "sequences": "encoding sequences",
    "clips": "judging by clips",
    "context": "sequence context",
    "classifier": "behind the LDA",
}


def open_origin(name: str) -> Origin:
    """A run's folder, or else a bundle's folder or a shipped bundle's name."""
    from fer_edge.train import train as trainer

    return trainer.open_origin(name)


class _Reporter:
    """A bar a stage on the terminal, and a line an epoch everywhere."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def step(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._display.add_task(_STAGES.get(stage, stage), total=total)
        self._display.update(self._tasks[stage], completed=done, total=total)

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        console.print(
            f"{_STAGES.get(stage, stage)}: epoch {figures['epoch']:.0f}, loss {figures['loss']:.4f}, "
            f"choose top-1 {figures['choose_top1']:.2%} (best {figures['best_top1']:.2%})"
        )


@contextlib.contextmanager
def run_progress() -> Iterator[_Reporter]:
    """A reporter for the training library, drawing on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        yield _Reporter(display)


def run_summary(run: Any) -> dict[str, Any]:
    """What a finished run says of itself, for `--json`."""
    record = run.record
    kept = (
        "choose", "top1_by_window", "temperature", "seconds", "parent", "pruning", "sparsity", "qat", "quantised",
        "init", "teacher", "data", "versions",
    )  # fmt: skip
    return {"run": str(run.path), **{key: record[key] for key in kept if key in record}}


def print_run(run: Any) -> None:
    """The summary as a table."""
    choose, windows = run.record["choose"], run.record["top1_by_window"]
    without = choose["top1_without_leaked"]
    rows = [
        (f"{choose['split']} top-1, all {choose['n']:,}", f"{choose['top1']:.2%}"),
        ("  without rows that also stand in training", "–" if without is None else f"{without:.2%}"),
        ("  macro-F1", f"{choose['macro_f1']:.2%}"),
        ("  expected calibration error", f"{choose['ece']:.4f}"),
        *(
            (f"  top-1 {', T = '.join(name.rsplit('_', 1)).replace('_', ', ')} (without leaked)", f"{value:.2%}")
            for name, value in windows.items()
        ),
    ]
    if "pruning" in run.record:
        pruning = run.record["pruning"]
        before, after = pruning["macs_before"], pruning["macs_after"]
        rows.append(("encoder multiply-accumulates", f"{before / 1e6:.1f} M -> {after / 1e6:.1f} M"))
        if "parameters_before" in pruning:  # runs of older versions did not count them
            rows.append(("parameters", f"{pruning['parameters_before']:,} -> {pruning['parameters_after']:,}"))
    if "sparsity" in run.record:
        zeros, weights = run.record["sparsity"]["zeros"], run.record["sparsity"]["of_weights"]
        rows.append((f"zeros in the pattern {run.record['sparsity']['pattern']}", f"{zeros:,} of {weights:,} weights"))
    if "quantised" in run.record:
        rounded = run.record["quantised"]
        rows.append((f"rounded as {rounded['form']}: top-1, all", f"{rounded['choose']['top1']:.2%}"))
        without = rounded["choose"]["top1_without_leaked"]
        rows.append(("  without rows that also stand in training", "–" if without is None else f"{without:.2%}"))
    print_table(("", str(run.path)), rows, right=(str(run.path),))
