"""What the scripts of this folder share: timing of named calls, the head of a result file, options and errors."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from fer_edge.bench.latency import Probe, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.cli.console import progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.types import Array, Int64

__all__ = ["json_option", "over", "random_feeds", "report_errors", "result_head", "time_calls", "timing_options"]

WARM_UP = 20

Key = TypeVar("Key", bound=Hashable)
Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here."
)


def timing_options(rounds: int) -> Callable[[Command], Command]:
    """Add `--json`, `--rounds` and `--per-round` to a command."""

    def add(command: Command) -> Command:
        count = click.IntRange(min=1)
        command = click.option("--per-round", default=10, show_default=True, type=count, help="Samples a round.")(
            command
        )
        command = click.option("--rounds", default=rounds, show_default=True, type=count, help="Timing rounds.")(
            command
        )
        return json_option(command)

    return add


def report_errors(command: Command) -> Command:
    """Print a `FerEdgeError` of a command in one line and exit with status 1."""

    @functools.wraps(command)
    def reported(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except FerEdgeError as error:
            raise click.ClickException(str(error)) from error

    return reported  # type: ignore[return-value]


def result_head(what: str) -> dict[str, Any]:
    """Return the first fields of a result file; call it before anything loads the machine."""
    return {
        "schema": 1,
        "what": what,
        "created": timestamp(),
        "command": shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "device": machine_report().to_json(),
    }


def time_calls(
    calls: Mapping[Key, Callable[[], object]], *, rounds: int, per_round: int
) -> tuple[dict[Key, Int64], dict[str, int]]:
    """Time calls interleaved: int64 (rounds, per_round) nanoseconds of each, and the timing as a result states it."""
    probes = [Probe(name=str(key), stages={"run": call}, per_round=per_round) for key, call in calls.items()]
    with progress("timing") as bar:
        samples = measure_interleaved(probes, rounds=rounds, warm_up=WARM_UP, progress=bar)
    times = {key: samples[str(key)].total() for key in calls}
    return times, {"rounds": rounds, "per_round": per_round, "warm_up": WARM_UP, "threads": 1, "batch": 1}


def over(times: Int64, base: Int64, *, name: str, t: int | None = None) -> dict[str, Any]:
    """Summarise times and their ratio to a base in the same round, as ``over_NAME`` and ``over_NAME_min``."""
    ratio = ratio_over_rounds(times, base)
    return {
        "latency_ms": summarise(times, batch=1, t=t, threads=1).to_json(),
        f"over_{name}": {"median": ratio.median, "q1": ratio.q1, "q3": ratio.q3},
        f"over_{name}_min": float(times.min() / base.min()),
    }


def random_feeds(bundle: Bundle, part: str) -> dict[str, Array]:
    """Draw the inputs of one run: one frame for the ``"encoder"``, one full window for the ``"head"``."""
    random = np.random.default_rng(0)
    size, sequence = bundle.manifest.preprocess.size, bundle.manifest.sequence
    if part == "encoder":
        return {"frames": random.integers(0, 256, (1, size, size)).astype(np.uint8)}
    features = random.normal(size=(1, sequence.window, sequence.feature_size)).astype(np.float32)
    return {"features": features, "length": np.array([sequence.window], np.int64)}
