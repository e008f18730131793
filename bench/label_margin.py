"""Measure what `StreamOptions.change_margin` saves in label changes and costs in delay, on clips made from stills.

    python bench/label_margin.py base --data fer2013:PATH --json bench/results/DEVICE/live/label_margin.json

Each clip shows one PublicTest face, then another of another expression, under changing corruptions. The estimates are
the runtime's own (`HeadReader`), one per frame at the bundle's frame rate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from workbench import json_option, report_errors, result_head

from fer_edge.bench.accuracy import labelled_rows
from fer_edge.bench.temporal_methods import ClipFeatures, changing_conditions, encode_condition
from fer_edge.cli.console import progress
from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Float32, Int64
from fer_edge.data import load_dataset
from fer_edge.runtime import Network
from fer_edge.runtime.reading import HeadReader, Moment

MARGINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)


def window_probabilities(network: Network, clips: ClipFeatures) -> Float32:
    """Compute the head's probabilities at every frame of the clips: float32 (N, T, C)."""
    window, (count, steps) = network.window, clips.features.shape[:2]
    padded = np.concatenate((np.repeat(clips.features[:, :1], window - 1, axis=1), clips.features), axis=1)
    found = [
        network.probabilities(
            np.ascontiguousarray(padded[:, step : step + window]), np.full(count, min(step + 1, window), np.int64)
        )
        for step in range(steps)
    ]
    return np.stack(found, axis=1)


def shown_labels(reader: HeadReader, rows: Float32, margin: float) -> Int64:
    """Return the label that the runtime shows at every frame of every clip: int64 (N, T), -1 for unknown."""
    moment, numbers = Moment(age_ms=0.0, window_fill=1.0), {name: n for n, name in enumerate(reader.labels)}
    shown = np.full(rows.shape[:2], -1, np.int64)
    for clip, seen in zip(rows, shown, strict=True):
        last: str | None = None
        for step, row in enumerate(clip):
            last = reader.estimate(row, moment, last=last, change_margin=margin).label
            seen[step] = numbers.get(last, -1)
    return shown


def measure(reader: HeadReader, rows: Float32, clips: ClipFeatures, labels: Int64, window: int) -> list[dict[str, Any]]:
    """Count changes and delays at each margin; delays over the clips that every margin reports rightly, then anew."""
    truth, steps = labels[clips.stills], np.arange(rows.shape[1])
    old, new = truth[:, 0], truth[:, -1]
    after = steps >= clips.changed[:, None]
    steady = (steps >= window) & ~after
    shown = {margin: shown_labels(reader, rows, margin) for margin in MARGINS}
    reported = {margin: (seen == new[:, None]) & after for margin, seen in shown.items()}
    before = (np.arange(len(old)), clips.changed - 1)
    compared = np.logical_and.reduce(
        [reported[margin].any(axis=1) & (seen[before] == old) for margin, seen in shown.items()]
    )
    results = []
    for margin, seen in shown.items():
        known = steady[:, 1:] & (seen[:, 1:] >= 0) & (seen[:, :-1] >= 0)
        delays = (reported[margin].argmax(axis=1) - clips.changed)[compared]
        mean, median, p90 = delays.mean(), np.median(delays), np.quantile(delays, 0.9)
        results.append(
            {
                "margin": margin,
                "changes_per_frame": float((seen[:, 1:] != seen[:, :-1])[known].mean()),
                "delay_frames": {"mean": float(mean), "median": float(median), "p90": float(p90), "n": len(delays)},
                "never": float(1 - reported[margin].any(axis=1).mean()),
                "right": float((seen == truth)[:, window - 1 :].mean()),
            }
        )
    return results


@click.command()
@click.argument("bundle")
@click.option("--data", required=True, help="FER2013, as KIND:PATH.")
@click.option("--variant", default="int8", show_default=True, help="Variant of the bundle.")
@click.option("--clips", default=600, show_default=True, type=click.IntRange(min=20), help="Stills to begin with.")
@json_option
@report_errors
def main(bundle: str, data: str, variant: str, clips: int, json_file: Path | None) -> None:
    """Measure margins of the label on BUNDLE."""
    head = result_head("margins of the label")
    rows = labelled_rows(load_dataset(data), "choose")
    assert rows.labels is not None
    chosen = np.linspace(0, len(rows.labels) - 1, clips).round().astype(int)
    images, labels = np.asarray(rows.images)[chosen], np.asarray(rows.labels)[chosen]
    with Network.open(bundle, variant=variant) as network, progress("clips") as bar:
        reader, results = HeadReader.of(network, None), {}
        for condition in changing_conditions(network.window):
            made = encode_condition(network, images, labels, condition, progress=bar)
            found = window_probabilities(network, made)
            results[condition.name] = measure(reader, found, made, labels, network.window)
        info, rate = network.info.to_json(), network.manifest.sequence.frame_rate
    for name, each in results.items():
        table = [
            (f"{row['margin']:g}", f"{row['changes_per_frame']:.2%}", f"{row['delay_frames']['mean'] * 1e3 / rate:.0f}",
             f"{row['delay_frames']['p90'] * 1e3 / rate:.0f}", f"{row['never']:.1%}", f"{row['right']:.1%}")
            for row in each
        ]  # fmt: skip
        columns = ("margin", "changes per frame", "delay, mean ms", "p90 ms", "never", "right")
        print_table(Table(columns=columns, rows=table, title=f"{bundle} {variant}, {name} clips"))
    if json_file is not None:
        write_json(json_file, {**head, "engine": info, "frame_rate": rate, "clips": clips, "conditions": results})


if __name__ == "__main__":
    main()
