"""Compare five forms of the LSTM in one INT8 encoder: time and accuracy.

    python bench/lstm_int8.py edge --data fer2013:PATH --json bench/results/DEVICE/lstm_int8.json

- ``weights``: the LSTM node, its weights stored as int8 and computed in float. This is what ships.
- ``float``: the LSTM node with float weights.
- ``hoisted``: the input's product of all steps as one float MatMul, the recurrent part in a Scan.
- ``projection``: as hoisted, the product quantized by NNCF like a convolution.
- ``dynamic``: as hoisted, the product as DynamicQuantizeLinear and MatMulInteger, its input's range measured in every
  run.

The recurrent part stays float in all of them, and the convolutions are the same INT8. The graphs are open in their
batch, as the runtime runs them: with fixed shapes ONNX Runtime makes one Gemm of the quantized product and its bias,
whose weights it then dequantizes in every run. Times are of one frame, in turn in one process, over those of
``weights`` in the same round; accuracy is that of the choosing split without leaked rows, in ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from workbench import over, random_feeds, report_errors, result_head, time_calls, timing_options

from fer_edge.calibrate import require_packages
from fer_edge.cli.console import progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.files import sha256_bytes, write_json
from fer_edge.core.metrics import expected_calibration_error, fit_temperature, paired_report, softmax
from fer_edge.core.tables import Table, print_table
from fer_edge.core.types import Array
from fer_edge.graph.graph import Graph
from fer_edge.runtime.providers import open_session

PROVIDERS = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}
BASE = "weights"


def encoders(bundle: Bundle, dataset: Any, recipe: Any) -> dict[str, bytes]:
    """Make every form of the encoder, open in N."""
    from fer_edge.calibrate.evaluation import FloatParent
    from fer_edge.calibrate.int8_variants import finished_graphs
    from fer_edge.calibrate.ptq import quantize_encoder
    from fer_edge.graph.lstm_forms import rewrite_lstm

    parent = FloatParent.open(bundle, dataset, recipe, threads=1, progress=None)
    frames = parent.frames(parent.sample(dataset, recipe).stills)
    made: dict[str, bytes] = {}
    for lstm in ("weights", "projection"):
        ptq = dataclasses.replace(recipe.ptq, lstm=lstm)
        quantized = quantize_encoder(parent.encoder, frames, recipe=ptq, overflow_fix=recipe.overflow_fix.int8)
        for name in ("weights", "float") if lstm == "weights" else (lstm,):
            changed = dataclasses.replace(recipe, ptq=dataclasses.replace(ptq, lstm=name))
            made[name] = finished_graphs("int8", quantized, parent.head, recipe=changed).encoder
    hoisted = Graph.read(made["float"])
    rewrite_lstm(hoisted, form="hoisted")
    made["hoisted"] = hoisted.write()
    made["dynamic"] = dynamic_product(hoisted)
    return {name: made[name] for name in ("weights", "float", "hoisted", "projection", "dynamic")}


def dynamic_product(hoisted: Graph) -> bytes:
    """Turn the hoisted products into MatMulInteger with ONNX Runtime's own tool."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from fer_edge.graph.lstm_forms import PRODUCT

    products = [node.name for node in hoisted.nodes if node.op_type == "MatMul" and node.name.endswith(PRODUCT)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            hoisted.to_model(), file, op_types_to_quantize=["MatMul"], nodes_to_quantize=products, per_channel=True,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
        model = onnx.load(file)
    del model.opset_import[:]
    model.opset_import.extend(hoisted.opset_import)  # the tool also imports the operators of its own, unused here
    return Graph(model).write()


def accuracies(bundle: Bundle, graphs: dict[str, bytes], dataset: Any, rows: int) -> dict[str, Any]:
    """Measure top-1, flips and calibration error of every form before the float head, beside the float parent."""
    from fer_edge.core.preprocess import prepare_stills
    from fer_edge.data.statistics import leaked_rows

    choose = dataset.split("choose")
    kept = choose.subset(~leaked_rows(dataset, choose))
    if rows < len(kept):
        kept = kept.subset(np.sort(np.random.default_rng(11).choice(len(kept), rows, replace=False)))
    frames = prepare_stills(kept.images, bundle.manifest.preprocess)
    head = open_session(bundle.graph_bytes("fp32", "head"), provider="cpu")

    def logits(encoder: bytes, what: str) -> np.ndarray:
        session, found = open_session(encoder, provider="cpu"), []
        with progress(what) as bar:
            for start in range(0, len(frames), 64):
                features = session.run({"frames": frames[start : start + 64]})["features"]
                length = np.ones(len(features), np.int64)
                found.append(head.run({"features": features[:, None], "length": length})["logits"])
                bar(what, start, len(frames))
        return np.concatenate(found)

    exact = logits(bundle.graph_bytes("fp32", "encoder"), "fp32")
    before = softmax(exact, temperature=fit_temperature(exact, kept.labels))
    result: dict[str, Any] = {
        "split": choose.name,
        "rows": len(kept),
        "without_leaked": True,
        "fp32": {
            "top1": float((exact.argmax(axis=1) == kept.labels).mean()),
            "ece": expected_calibration_error(before, kept.labels),
        },
        "forms": {},
    }
    for name, graph in graphs.items():
        found = logits(graph, name)
        after = softmax(found, temperature=fit_temperature(found, kept.labels))
        paired = paired_report(before, after, kept.labels)
        result["forms"][name] = {
            "top1": float((found.argmax(axis=1) == kept.labels).mean()),
            "flip_rate": paired.flip_rate,
            "mcnemar_p": paired.mcnemar_p,
            "ece": expected_calibration_error(after, kept.labels),
            "mean_abs_logit_diff": float(np.abs(found - exact).mean()),
        }
    return result


def latencies(
    graphs: dict[str, bytes], frame: dict[str, Array], *, rounds: int, per_round: int
) -> dict[str, dict[str, Any]]:
    """Time one frame by engine and form, over the base; what an engine refuses is named."""
    sessions, refused, versions = {}, {}, {}
    for provider, (name, graph) in itertools.product(PROVIDERS, graphs.items()):
        try:
            session = open_session(graph, provider=provider)
            session.run(frame)
        except FerEdgeError as error:
            refused[provider, name] = " ".join(str(error).split())[:200]
            continue
        sessions[provider, name], versions[provider] = session, session.provider_version
    calls = {key: functools.partial(session.run, frame) for key, session in sessions.items()}
    times, timing = time_calls(calls, rounds=rounds, per_round=per_round)
    found: dict[str, Any] = {provider: {} for provider in PROVIDERS}
    for provider, name in itertools.product(PROVIDERS, graphs):
        key = provider, name
        found[provider][name] = (
            {"refused": refused[key]} if key in refused else over(times[key], times[provider, BASE], name=BASE)
        )
    return {"timing": timing, "engines": versions, "latency": found}


def table(result: dict[str, Any]) -> Table:
    """Tabulate the forms."""

    def ratio(provider: str) -> Callable[[str], str]:
        def cell(form: str) -> str:
            times = result["latency"][provider][form]
            if "refused" in times:
                return "refused"
            return f"{times['over_weights']['median']:.2f} ({times['over_weights_min']:.2f})"

        return cell

    forms = result["accuracy"]["forms"]
    return Table.of(
        result["encoder_bytes"],
        {
            "LSTM": str,
            "kB": lambda form: f"{result['encoder_bytes'][form] / 1000:,.0f}",
            **{title: ratio(provider) for provider, title in PROVIDERS.items()},
            "top-1": lambda form: f"{forms[form]['top1']:.2%}",
            "flips": lambda form: f"{forms[form]['flip_rate']:.2%}",
            "ECE": lambda form: f"{forms[form]['ece']:.4f}",
        },
    )


@click.command()
@click.argument("bundle")
@click.option("--data", required=True, metavar="SPEC", help="The data set to calibrate and measure on.")
@click.option("--rows", default=4000, show_default=True, type=click.IntRange(min=1), help="Of the choosing split.")
@timing_options(rounds=60)
@report_errors
def main(bundle: str, data: str, json_file: Path | None, rows: int, rounds: int, per_round: int) -> None:
    """Time the forms of an INT8 encoder's LSTM and evaluate each."""
    require_packages(needed_by="bench/lstm_int8.py")
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.core.recipes import load_recipe
    from fer_edge.data import load_dataset

    opened, dataset = Bundle.open(bundle), load_dataset(data)
    recipe = load_recipe(CalibrationRecipe, "default", room="calibrate")
    graphs = encoders(opened, dataset, recipe)
    result = {
        **result_head("INT8 forms of the encoder's LSTM"),
        "bundle": {"name": opened.manifest.name, "sha256": opened.sha256},
        "encoder_bytes": {name: len(graph) for name, graph in graphs.items()},
        "encoder_sha256": {name: sha256_bytes(graph) for name, graph in graphs.items()},
        **latencies(graphs, random_feeds(opened, "encoder"), rounds=rounds, per_round=per_round),
        "accuracy": accuracies(opened, graphs, dataset, rows),
    }
    if json_file is not None:
        write_json(json_file, result)
    title = f"encoder of one frame over the form {BASE!r}: median of the rounds (fastest over fastest)"
    print_table(dataclasses.replace(table(result), title=title))


if __name__ == "__main__":
    main()
