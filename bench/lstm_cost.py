"""What the spatial BiLSTM costs of the encoder, and a streaming step of the encoder alone, on this processor.

    python bench/lstm_cost.py base --json bench/results/DEVICE/lstm_cost.json

The BiLSTM's share is what the encoder saves when a slice of the LSTM's input takes the place of its output: everything
before and after it stays. A streaming step is one encoding and the head over a full window. Shapes are as the runtime
gives them, all graphs are timed in turn in one process, and ratios are taken round by round.
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
from onnx import ModelProto, helper, numpy_helper

from fer_edge.bench.latency import Probe, Samples, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.cli.console import print_table, progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, InputError
from fer_edge.core.files import write_json
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.graph.graph import GraphIndex, drop_dead_nodes, drop_unused, dump_graph, load_graph
from fer_edge.runtime.providers import open_session

PROVIDERS = ("cpu", "openvino")
PROBES = ("encoder", "encoder_without_lstm", "streaming_step")


def without_lstm(model: ModelProto) -> ModelProto:
    """The graph with each LSTM's output replaced by the first numbers of its input, in the output's shape.

    Raises:
        InputError: there is no LSTM, or its input is narrower than its output.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    lstms = [node for node in result.graph.node if node.op_type == "LSTM"]
    if not lstms:
        raise InputError("the graph has no LSTM")
    nodes = []
    for node in result.graph.node:
        if node.op_type != "LSTM":
            nodes.append(node)
            continue
        hidden = next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
        name = node.output[0]
        constants = {"starts": [0], "ends": [2 * hidden], "axes": [2], "shape": [0, 0, 2, hidden]}
        for key, value in constants.items():
            result.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"{name}/{key}"))
        slice_inputs = [node.input[0], *(f"{name}/{key}" for key in ("starts", "ends", "axes"))]
        nodes += [
            helper.make_node("Slice", slice_inputs, [f"{name}/slice"], name=f"{name}/Slice"),
            helper.make_node("Reshape", [f"{name}/slice", f"{name}/shape"], [f"{name}/split"], name=f"{name}/Reshape"),
            helper.make_node("Transpose", [f"{name}/split"], [name], perm=[0, 2, 1, 3], name=f"{name}/Transpose"),
        ]
        if any(index.consumers(other) for other in node.output[1:] if other):
            raise InputError(f"LSTM {node.name}: its last states are read too; only its sequence can be replaced")
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    drop_dead_nodes(result)
    drop_unused(result)
    return result


def stages(bundle: Bundle, variant: str, provider: str) -> dict[str, Callable[[], object]]:
    """One call of the encoder, of the encoder without its LSTM, and of a streaming step."""
    random = np.random.default_rng(0)
    size, sequence = bundle.manifest.preprocess.size, bundle.manifest.sequence
    frame = {"frames": random.integers(0, 256, (1, size, size)).astype(np.uint8)}
    window = {
        "features": random.normal(size=(1, sequence.window, sequence.feature_size)).astype(np.float32),
        "length": np.array([sequence.window], np.int64),
    }
    graph = bundle.graph_bytes(variant, "encoder")
    encoder, head = (open_session(data, provider=provider) for data in (graph, bundle.graph_bytes(variant, "head")))
    rest = open_session(dump_graph(without_lstm(load_graph(graph))), provider=provider)
    return {
        "encoder": lambda: encoder.run(frame),
        "encoder_without_lstm": lambda: rest.run(frame),
        "streaming_step": lambda: (encoder.run(frame), head.run(window)),
    }


def row(bundle: Bundle, variant: str, provider: str, samples: dict[str, Samples]) -> dict[str, Any]:
    """The figures of one variant on one engine."""
    times = {probe: samples[f"{bundle.manifest.name}/{variant}/{provider}/{probe}"].total() for probe in PROBES}
    rest = ratio_over_rounds(times["encoder_without_lstm"], times["encoder"])
    step = ratio_over_rounds(times["streaming_step"], times["encoder"])
    return {
        "bundle": bundle.manifest.name,
        "sha256": bundle.sha256,
        "variant": variant,
        "provider": provider,
        "window": bundle.manifest.sequence.window,
        "latency_ms": {probe: summarise(taken, batch=1, t=None, threads=1).to_json() for probe, taken in times.items()},
        "lstm_share": {"median": 1 - rest.median, "q1": 1 - rest.q3, "q3": 1 - rest.q1},
        "lstm_share_min": float(1 - times["encoder_without_lstm"].min() / times["encoder"].min()),
        "streaming_over_encoder": {"median": step.median, "q1": step.q1, "q3": step.q3},
        "streaming_over_encoder_min": float(times["streaming_step"].min() / times["encoder"].min()),
    }


@click.command()
@click.argument("bundles", nargs=-1, required=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(min=1))
@click.option("--per-round", default=10, show_default=True, type=click.IntRange(min=1))
def main(bundles: tuple[str, ...], json_file: Path | None, rounds: int, per_round: int) -> None:
    """Time the LSTM's share in the encoders of BUNDLES, fp32 and int8, on ONNX Runtime and OpenVINO."""
    opened = [Bundle.open(name) for name in bundles]
    cases = [
        (bundle, variant.name, provider)
        for bundle, provider in itertools.product(opened, PROVIDERS)
        for variant in bundle.manifest.variants
        if variant.name in ("fp32", "int8")
    ]
    probes = [
        Probe(name=f"{bundle.manifest.name}/{variant}/{provider}/{probe}", stages={"run": run}, per_round=per_round)
        for bundle, variant, provider in cases
        for probe, run in stages(bundle, variant, provider).items()
    ]
    device = machine_report()
    with progress("timing", total=rounds) as bar:
        samples = measure_interleaved(
            probes, rounds=rounds, warm_up=20, progress=lambda done, total: bar("timing", done, total)
        )
    result = {
        "schema": 1,
        "what": "LSTM cost",
        "created": timestamp(),
        "command": shlex.join(["python", "bench/lstm_cost.py", *sys.argv[1:]]),
        "device": device.to_json(),
        "timing": {"rounds": rounds, "per_round": per_round, "warm_up": 20, "threads": 1, "batch": 1},
        "rows": [row(*case, samples) for case in cases],
    }
    if json_file is not None:
        write_json(json_file, result)
    print_table(
        ("bundle", "variant", "engine", "encoder ms (min)", "LSTM's share: median (min)", "streaming / encoder (min)"),
        [
            (
                each["bundle"],
                each["variant"],
                each["provider"],
                f"{each['latency_ms']['encoder']['p50']:.3f} ({each['latency_ms']['encoder']['min']:.3f})",
                f"{each['lstm_share']['median']:.1%} ({each['lstm_share_min']:.1%})",
                f"{each['streaming_over_encoder']['median']:.2f} ({each['streaming_over_encoder_min']:.2f})",
            )
            for each in result["rows"]
        ],
        title=f"what the sequence costs a frame, window {opened[0].manifest.sequence.window}",
    )


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except FerEdgeError as error:
        raise SystemExit(f"error: {error}") from error
