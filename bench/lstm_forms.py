"""Time the three forms of the LSTM on a processor: loop, hoisted, unrolled, interleaved in one process.

    python bench/lstm_forms.py base --json bench/results/DEVICE/lstm_forms.json

Every graph has fixed shapes (one frame; one full window), so that the forms are all that differs. A ratio is a form's
time over the loop's in the same round; `min` compares the fastest samples of the whole run.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from workbench import over, random_feeds, report_errors, result_head, time_calls, timing_options

from fer_edge.core.bundle import Bundle
from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Int64
from fer_edge.graph.graph import Graph
from fer_edge.graph.lstm_forms import rewrite_lstm
from fer_edge.graph.simplify import fix_dimensions, fold_constants
from fer_edge.runtime.providers import open_session

FORMS = ("loop", "hoisted", "unrolled")
PARTS = ("encoder", "head")


def form_graph(bundle: Bundle, variant: str, part: str, form: str) -> bytes:
    """Return the graph of one part in one form, its shapes fixed at one frame or one full window."""
    graph = Graph.read(bundle.graph_bytes(variant, part))  # type: ignore[arg-type]
    sizes = {"N": 1} if part == "encoder" else {"B": 1, "T": bundle.manifest.sequence.window}
    fix_dimensions(graph, sizes)
    rewrite_lstm(graph, form=form)  # type: ignore[arg-type]
    fold_constants(graph)
    return graph.write()


def rows(times: dict[tuple[str, ...], Int64], *, window: int) -> list[dict[str, Any]]:
    """Make a row for each graph: the summary of each form and its ratios to the loop; the head on a full `window`."""
    found = []
    for graph in dict.fromkeys(key[:3] for key in times):
        t = None if graph[2] == "encoder" else window
        forms = {form: over(times[(*graph, form)], times[(*graph, "loop")], name="loop", t=t) for form in FORMS}
        found.append({"provider": graph[0], "variant": graph[1], "part": graph[2], "forms": forms})
    return found


def table(result: dict[str, Any]) -> Table:
    """Tabulate the rows."""

    def ratio(form: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: (
            f"{row['forms'][form]['over_loop']['median']:.2f} ({row['forms'][form]['over_loop_min']:.2f})"
        )

    return Table.of(
        result["rows"],
        {
            "engine": lambda row: row["provider"],
            "variant": lambda row: row["variant"],
            "graph": lambda row: row["part"],
            "loop ms (min)": lambda row: "{p50:.3f} ({min:.3f})".format(**row["forms"]["loop"]["latency_ms"]),
            **{f"{form}: median (min)": ratio(form) for form in FORMS[1:]},
        },
        title="times over the loop's",
    )


@click.command()
@click.argument("bundle")
@timing_options(rounds=40)
@report_errors
def main(bundle: str, json_file: Path | None, rounds: int, per_round: int) -> None:
    """Time the LSTM forms of every part, variant (fp32, int8) and engine on this processor."""
    opened = Bundle.open(bundle)
    names = {variant.name for variant in opened.manifest.variants}
    variants = [name for name in ("fp32", "int8") if name in names]
    graphs = {key: form_graph(opened, *key) for key in itertools.product(variants, PARTS, FORMS)}
    sessions = {
        (provider, *key): open_session(graph, provider=provider)
        for provider in ("cpu", "openvino")
        for key, graph in graphs.items()
    }
    calls = {key: functools.partial(session.run, random_feeds(opened, key[2])) for key, session in sessions.items()}
    result = result_head("LSTM forms")
    times, timing = time_calls(calls, rounds=rounds, per_round=per_round)
    result |= {
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "timing": timing,
        "engines": {key[0]: session.provider_version for key, session in sessions.items()},
        "max_abs_diff_to_loop": {
            "/".join(key): max(
                float(np.abs(value - expected).max())
                for value, expected in zip(call().values(), calls[(*key[:3], "loop")]().values(), strict=True)
            )
            for key, call in calls.items()
        },
        "rows": rows(times, window=opened.manifest.sequence.window),
    }
    if json_file is not None:
        write_json(json_file, result)
    print_table(table(result))


if __name__ == "__main__":
    main()
