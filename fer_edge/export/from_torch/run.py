"""A finished training run to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import onnxruntime
import torch
from torch import nn

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.int8_forms import FORMS, HALF_RANGE_WEIGHTS, QAT_SUFFIX, Form
from fer_edge.core.json import encode
from fer_edge.core.manifest import GraphFile, Manifest, Provenance, SequenceSpec, Variant, timestamp
from fer_edge.core.metrics import AccuracyReport
from fer_edge.export.from_torch.graphs import (
    ENCODER_SHAPES,
    OPSET,
    TorchNetwork,
    check_graphs,
    encoder_graph,
    graph_files,
    network_graphs,
)
from fer_edge.export.model_card import INTENDED_USE, WEIGHTS_LICENCE
from fer_edge.export.parity.outputs import Parity, compare_outputs, require_parity
from fer_edge.export.parity.torch_record import RECORD, RecordedOutputs, generated_frames, record_outputs
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import dump_graph, load_graph
from fer_edge.graph.qdq import fold_weight_quantizers
from fer_edge.graph.sparsity import require_two_of_four
from fer_edge.graph.tensorrt_rewrites import cast_input_first
from fer_edge.graph.weight_compression import STORAGE, stored_form
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.model.fake_quantization import fixed
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.qat import load_quantised
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import TrainRun

__all__ = ["export_run", "run_outputs", "untrained_graphs"]

ROUNDING_TOLERANCE: Final = 0.01
"""For INT8 graphs: a value half-way between two steps may be rounded either way, which moves a feature by so much."""


def export_run(
    run: TrainRun, out: Path, *, name: str | None = None, tolerance: float = 1e-4, overwrite: bool = False
) -> Bundle:
    """Write a bundle with the run's FP32 encoder and head.

    Of a run of quantization-aware training the bundle also holds both INT8 forms in the ranges learnt, under the names
    ``int8-qat`` and ``int8-trt-qat``: nothing takes those unasked until ``fer-edge calibrate`` has let them through the
    gate.

    Args:
        run: a finished run.
        out: the bundle's folder.
        name: the bundle's name; the folder's by default.
        tolerance: largest difference of any output between torch and ONNX Runtime, at several shapes other than traced.
        overwrite: replace a bundle that stands at `out`.

    Raises:
        InputError: the run is not finished, or its LDA was never fitted.
        GateError: the graphs do not compute what torch computes, or the encoder's weights are not zero where the run
            says they are; nothing is written.
        OutputError: the bundle cannot be written.
    """
    model, _ = run.load_model()
    if not bool(model.head.lda.fitted):
        raise InputError(f"{run.path}: the LDA was never fitted; train the run to its end")
    graphs = network_graphs(model)
    sparse = _sparse_convolutions(run, graphs["encoder"])
    parity = check_graphs(model, graphs, tolerance)
    files = graph_files(graphs, window=run.recipe.sequence.window)
    record = _record(model, run)
    manifest = _manifest(run, model, name or out.name, files, parity, record)
    if sparse:
        told = {"pattern": run.record["sparsity"]["pattern"], "convolutions": list(sparse)}
        manifest = replace(manifest, model={**manifest.model, "sparsity": told})
    every = list(graphs.values())
    if "qat" in run.record:
        for form in FORMS:
            variant, made = _int8_variant(run, form, graphs["head"])
            manifest, every = manifest.with_variant(variant), [*every, *made]
    return Bundle.create(out, manifest, {sha256_bytes(data): data for data in every}, overwrite=overwrite)


def _int8_variant(run: TrainRun, form: Form, head: bytes) -> tuple[Variant, tuple[bytes, bytes]]:
    """One INT8 form in the ranges that the run learnt, and its encoder and head; no gate has seen it."""
    rounding, window = load_quantised(run, form), run.recipe.sequence.window
    exported = load_graph(encoder_graph(fixed(rounding), run.recipe.model), name=f"the {form} encoder")
    encoder = cast_input_first(fold_weight_quantizers(exported))
    parity = _rounding_parity(rounding, dump_graph(encoder), run)
    require_parity(parity, tolerance=ROUNDING_TOLERANCE, what=f"the exported {form} encoder against torch")
    graphs = stored_form(encoder, load_graph(head, name="the head"), form=form)
    measured = run.record["quantised"]
    trained = measured["form"] == form
    accuracy = AccuracyReport.from_json(measured["choose"])
    return Variant(
        name=form + QAT_SUFFIX,
        precision="int8",
        encoder=graph_file(graphs[0], dimensions={"N": 1}, name=f"the {form} encoder"),
        head=graph_file(graphs[1], dimensions={"B": 1, "T": window}, name=f"the {form} head"),
        parent="fp32",
        how_made={
            "method": "quantization-aware training of the encoder; sequence weights stored as int8, computed in float",
            "form": form,
            "trained_under": measured["form"],
            "nncf": run.record["qat"]["nncf"],
            "half_range_weights": HALF_RANGE_WEIGHTS[form],
            "weight_storage": STORAGE[form],
            "recipe": run.record["qat"]["recipe"],
            "exporter": f"torch {run.record['versions']['torch']}, opset {OPSET}, traced, weights folded",
        },
        temperature=measured["temperature"],
        unknown_threshold=measured["unknown_threshold"],
        metrics={accuracy.split: accuracy} if trained else {},
        parity={"encoder": parity.to_json()},
    ), graphs


def _rounding_parity(rounding: nn.Module, graph: bytes, run: TrainRun) -> Parity:
    """The Q/DQ graph beside the rounding encoder in torch, on generated faces.

    ONNX Runtime computes it as it stands, node by node: what an engine makes of Q/DQ is for the gate to judge.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    frames, names = generated_frames(max(ENCODER_SHAPES), run.recipe.preprocess), ["features", "attention"]
    pairs, shapes = [], []
    for count in ENCODER_SHAPES:
        part = frames[:count]
        with torch.no_grad():
            expected = [value.numpy() for value in rounding(torch.from_numpy(part))]
        got = session.run(names, {"frames": part})
        pairs.append((dict(zip(names, expected, strict=True)), dict(zip(names, got, strict=True))))
        shapes.append(tuple(part.shape))
    return compare_outputs(pairs, shapes)


def _sparse_convolutions(run: TrainRun, encoder: bytes) -> tuple[str, ...]:
    """Nodes whose weights hold the pattern that the run was trained to; none where it was not."""
    told = run.record.get("sparsity")
    if told is None:
        return ()
    return require_two_of_four(
        load_graph(encoder),
        min_channels=told["min_channels"],
        count=len(told["convolutions"]),
        what="the exported encoder",
    )


def run_outputs(run: TrainRun) -> TorchNetwork:
    """A run's network in torch, for the parity chain.

    Raises:
        InputError: the run is not finished.
    """
    return TorchNetwork(run.load_model()[0])


def untrained_graphs(recipe: TrainRecipe) -> dict[str, bytes]:
    """Encoder and head of a recipe's shape with random weights: as fast as trained ones, but sooner known."""
    return network_graphs(AttentionCnnBiLstm(recipe.model, normalisation=recipe.preprocess.normalisation).eval())


def _record(model: AttentionCnnBiLstm, run: TrainRun) -> RecordedOutputs:
    network = TorchNetwork(model)
    return record_outputs(network.encode, network.logits, run.recipe.preprocess, window=run.recipe.sequence.window)


def _manifest(
    run: TrainRun,
    model: AttentionCnnBiLstm,
    name: str,
    files: Mapping[str, GraphFile],
    parity: Mapping[str, Parity],
    outputs: RecordedOutputs,
) -> Manifest:
    record, recipe = run.record, run.recipe
    accuracy = AccuracyReport.from_json(record["choose"])
    variant = Variant(
        name="fp32",
        precision="fp32",
        encoder=files["encoder"],
        head=files["head"],
        how_made={"exporter": f"torch {record['versions']['torch']}, opset {OPSET}, traced, constants folded"},
        temperature=record["temperature"],
        unknown_threshold=record["unknown_threshold"],
        metrics={accuracy.split: accuracy},
        parity={**{part: result.to_json() for part, result in parity.items()}, RECORD: encode(outputs)},
    )
    return Manifest(
        name=name,
        created=timestamp(),
        labels=run.labels,
        preprocess=recipe.preprocess,
        sequence=SequenceSpec(
            window=recipe.sequence.window,
            feature_size=recipe.model.feature_size,
            frame_rate=recipe.sequence.frame_rate,
        ),
        variants=(variant,),
        provenance=Provenance(training=run.training),
        licence=WEIGHTS_LICENCE,
        intended_use=INTENDED_USE,
        model={
            "architecture": "attention CNN-BiLSTM",
            "config": asdict(recipe.model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "macs_encoder": encoder_macs(recipe.model),
            "macs_head": head_macs(recipe.model, recipe.sequence.window),
        },
    )
