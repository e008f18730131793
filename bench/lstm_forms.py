"""What the three forms of the LSTM cost on a processor: loop, hoisted, unrolled, timed in turn in one process.

    python bench/lstm_forms.py base --json bench/results/DEVICE/lstm_forms.json

Every graph has fixed shapes (one frame; one full window), so that the forms are all that differs. A ratio is a form's
time over the loop's in the same round; `min` compares the fastest samples of the whole run.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from fer_edge.bench.latency import Probe, Samples, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.cli.console import print_table, progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.files import write_json
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.graph.graph import dump_graph, load_graph
from fer_edge.graph.lstm_forms import rewrite_lstm
from fer_edge.graph.shapes import fix_dimensions
from fer_edge.graph.simplify import fold_constants
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

FORMS = ("loop", "hoisted", "unrolled")
PARTS = ("encoder", "head")


def form_graph(bundle: Bundle, variant: str, part: str, form: str) -> bytes:
    """The graph of one part in one form, its shapes fixed at one frame or one full window."""
    model = load_graph(bundle.graph_bytes(variant, part))  # type: ignore[arg-type]
    sizes = {"N": 1} if part == "encoder" else {"B": 1, "T": bundle.manifest.sequence.window}
    return dump_graph(fold_constants(rewrite_lstm(fix_dimensions(model, sizes), form=form)))  # type: ignore[arg-type]


def feeds(bundle: Bundle, part: str) -> dict[str, np.ndarray]:
    """Numbers for one run."""
    random = np.random.default_rng(0)
    size, sequence = bundle.manifest.preprocess.size, bundle.manifest.sequence
    if part == "encoder":
        return {"frames": random.integers(0, 256, (1, size, size)).astype(np.uint8)}
    features = random.normal(size=(1, sequence.window, sequence.feature_size)).astype(np.float32)
    return {"features": features, "length": np.array([sequence.window], np.int64)}


def rows(samples: dict[str, Samples], keys: list[tuple[str, ...]], *, window: int) -> list[dict[str, Any]]:
    """A row a graph: the summary of each form, and its ratios to the loop; the head on a full `window`."""
    found = []
    for provider, variant, part in dict.fromkeys(key[:3] for key in keys):
        times = {form: samples["/".join((provider, variant, part, form))].total() for form in FORMS}
        forms = {}
        for form, taken in times.items():
            ratio = ratio_over_rounds(taken, times["loop"])
            forms[form] = {
                "latency_ms": summarise(taken, batch=1, t=None if part == "encoder" else window, threads=1).to_json(),
                "over_loop": {"median": ratio.median, "q1": ratio.q1, "q3": ratio.q3},
                "over_loop_min": float(taken.min() / times["loop"].min()),
            }
        found.append({"provider": provider, "variant": variant, "part": part, "forms": forms})
    return found


@click.command()
@click.argument("bundle")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(min=1))
@click.option("--per-round", default=10, show_default=True, type=click.IntRange(min=1))
def main(bundle: str, json_file: Path | None, rounds: int, per_round: int) -> None:
    """Time the LSTM forms of every part, variant (fp32, int8) and engine on this processor."""
    opened = Bundle.open(bundle)
    names = {variant.name for variant in opened.manifest.variants}
    variants = [name for name in ("fp32", "int8") if name in names]
    keys = list(itertools.product(("cpu", "openvino"), variants, PARTS, FORMS))
    graphs = {key: form_graph(opened, *key[1:]) for key in keys if key[0] == "cpu"}
    sessions: dict[tuple[str, ...], Session] = {
        key: open_session(graphs[("cpu", *key[1:])], provider=key[0]) for key in keys
    }
    given = {part: feeds(opened, part) for part in PARTS}
    differences = {
        "/".join(key): float(
            max(
                np.abs(value - sessions[(*key[:3], "loop")].run(given[key[2]])[name]).max()
                for name, value in sessions[key].run(given[key[2]]).items()
            )
        )
        for key in keys
    }

    def run(key: tuple[str, ...]) -> Callable[[], object]:
        return lambda: sessions[key].run(given[key[2]])

    probes = [Probe(name="/".join(key), stages={"run": run(key)}, per_round=per_round) for key in keys]
    device = machine_report()
    with progress("timing", total=rounds) as bar:
        samples = measure_interleaved(
            probes, rounds=rounds, warm_up=20, progress=lambda done, total: bar("timing", done, total)
        )
    result = {
        "schema": 1,
        "what": "LSTM forms",
        "created": timestamp(),
        "command": shlex.join(["python", "bench/lstm_forms.py", *sys.argv[1:]]),
        "device": device.to_json(),
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "timing": {"rounds": rounds, "per_round": per_round, "warm_up": 20, "threads": 1},
        "engines": {key[0]: session.provider_version for key, session in sessions.items()},
        "max_abs_diff_to_loop": differences,
        "rows": rows(samples, keys, window=opened.manifest.sequence.window),
    }
    if json_file is not None:
        write_json(json_file, result)
    print_table(
        ("engine", "variant", "graph", "loop ms (min)", *(f"{form}: median (min)" for form in FORMS[1:])),
        [
            (
                row["provider"],
                row["variant"],
                row["part"],
                f"{row['forms']['loop']['latency_ms']['p50']:.3f} ({row['forms']['loop']['latency_ms']['min']:.3f})",
                *(
                    f"{row['forms'][form]['over_loop']['median']:.2f} ({row['forms'][form]['over_loop_min']:.2f})"
                    for form in FORMS[1:]
                ),
            )
            for row in result["rows"]
        ],
        title="times over the loop's",
    )


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except FerEdgeError as error:
        raise SystemExit(f"error: {error}") from error
