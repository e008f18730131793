"""Time the share of the spatial BiLSTM in the encoder, and a streaming step over the encoder alone, on this processor.

    python bench/lstm_cost.py base --json bench/results/DEVICE/lstm_cost.json

The BiLSTM's share is what the encoder saves when a slice of the LSTM's input takes the place of its output: everything
before and after it stays. A streaming step is one encoding and the head over a full window. Shapes are as the runtime
gives them, all graphs are timed in turn in one process, and ratios are taken round by round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from onnx import helper
from workbench import over, random_feeds, report_errors, result_head, time_calls, timing_options

from fer_edge.bench.latency import summarise
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Int64
from fer_edge.graph.graph import Graph, attribute
from fer_edge.runtime.providers import open_session

PROVIDERS = ("cpu", "openvino")


def without_lstm(graph: Graph) -> Graph:
    """Copy the graph with each LSTM's output replaced by the first numbers of its input, in the output's shape.

    Raises:
        InputError: there is no LSTM, or its input is narrower than its output.
    """
    result = graph.copy()
    if all(node.op_type != "LSTM" for node in result.nodes):
        raise InputError("graph: got no LSTM, expected one")
    nodes = []
    for node in result.nodes:
        if node.op_type != "LSTM":
            nodes.append(node)
            continue
        hidden = attribute(node, "hidden_size")
        name = node.output[0]
        values = {"starts": [0], "ends": [2 * hidden], "axes": [2], "shape": [0, 0, 2, hidden]}
        *bounds, shape = (result.add_constant(f"{name}/{key}", np.array(value)) for key, value in values.items())
        nodes += [
            helper.make_node("Slice", [node.input[0], *bounds], [f"{name}/slice"], name=f"{name}/Slice"),
            helper.make_node("Reshape", [f"{name}/slice", shape], [f"{name}/split"], name=f"{name}/Reshape"),
            helper.make_node("Transpose", [f"{name}/split"], [name], perm=[0, 2, 1, 3], name=f"{name}/Transpose"),
        ]
        if any(result.consumers(other) for other in node.output[1:] if other):
            raise InputError(f"LSTM {node.name}: got readers of its last states, expected of its sequence alone")
    result.set_nodes(nodes)
    result.prune()
    return result


def calls(bundle: Bundle, variant: str, provider: str) -> dict[str, Callable[[], object]]:
    """Make one call of the encoder, of the encoder without its LSTM, and of a streaming step."""
    frame, window = random_feeds(bundle, "encoder"), random_feeds(bundle, "head")
    graph = bundle.graph_bytes(variant, "encoder")
    encoder, head = (open_session(data, provider=provider) for data in (graph, bundle.graph_bytes(variant, "head")))
    rest = open_session(without_lstm(Graph.read(graph)).write(), provider=provider)
    return {
        "encoder": lambda: encoder.run(frame),
        "encoder_without_lstm": lambda: rest.run(frame),
        "streaming_step": lambda: (encoder.run(frame), head.run(window)),
    }


def row(bundle: Bundle, variant: str, provider: str, times: dict[str, Int64]) -> dict[str, Any]:
    """Make the figures of one variant on one engine."""
    rest = over(times["encoder_without_lstm"], times["encoder"], name="encoder")
    step = over(times["streaming_step"], times["encoder"], name="encoder")
    share = rest["over_encoder"]
    return {
        "bundle": bundle.manifest.name,
        "sha256": bundle.sha256,
        "variant": variant,
        "provider": provider,
        "window": bundle.manifest.sequence.window,
        "latency_ms": {
            "encoder": summarise(times["encoder"], batch=1, t=None, threads=1).to_json(),
            "encoder_without_lstm": rest["latency_ms"],
            "streaming_step": step["latency_ms"],
        },
        "lstm_share": {"median": 1 - share["median"], "q1": 1 - share["q3"], "q3": 1 - share["q1"]},
        "lstm_share_min": 1 - rest["over_encoder_min"],
        "streaming_over_encoder": step["over_encoder"],
        "streaming_over_encoder_min": step["over_encoder_min"],
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Tabulate the rows."""
    return Table.of(
        rows,
        {
            "bundle": lambda each: each["bundle"],
            "variant": lambda each: each["variant"],
            "engine": lambda each: each["provider"],
            "encoder ms (min)": lambda each: "{p50:.3f} ({min:.3f})".format(**each["latency_ms"]["encoder"]),
            "LSTM share (min)": lambda each: f"{each['lstm_share']['median']:.1%} ({each['lstm_share_min']:.1%})",
            "streaming / encoder (min)": lambda each: (
                f"{each['streaming_over_encoder']['median']:.2f} ({each['streaming_over_encoder_min']:.2f})"
            ),
        },
        title=f"cost of the sequence for a frame, window {rows[0]['window']}",
    )


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@timing_options(rounds=40)
@report_errors
def main(bundles: tuple[str, ...], json_file: Path | None, rounds: int, per_round: int) -> None:
    """Time the LSTM's share in the encoders of BUNDLES, fp32 and int8, on ONNX Runtime and OpenVINO."""
    cases = [
        (bundle, variant.name, provider)
        for bundle, provider in itertools.product([Bundle.open(name) for name in bundles], PROVIDERS)
        for variant in bundle.manifest.variants
        if variant.name in ("fp32", "int8")
    ]
    result = result_head("LSTM cost")
    probes = {(number, name): call for number, case in enumerate(cases) for name, call in calls(*case).items()}
    times, result["timing"] = time_calls(probes, rounds=rounds, per_round=per_round)
    result["rows"] = [
        row(*case, {name: taken for (place, name), taken in times.items() if place == number})
        for number, case in enumerate(cases)
    ]
    if json_file is not None:
        write_json(json_file, result)
    print_table(table(result["rows"]))


if __name__ == "__main__":
    main()
