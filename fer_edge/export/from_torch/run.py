"""Export of a finished training run to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import onnxruntime
import torch
from torch import nn

from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.graph_card import with_cards
from fer_edge.core.int8_forms import FORMS, HALF_RANGE_WEIGHTS, QAT_SUFFIX, Form
from fer_edge.core.json import encode
from fer_edge.core.manifest import CrowdHead, Manifest, SequenceSpec, Variant, timestamp
from fer_edge.core.metrics import AccuracyReport
from fer_edge.core.provenance import Provenance
from fer_edge.export.data_facts import intended_use, used_data, weights_licence
from fer_edge.export.from_torch.graphs import (
    ENCODER_SHAPES,
    OPSET,
    ExportedNetwork,
    TorchNetwork,
    encoder_graph,
    export_network,
)
from fer_edge.export.parity.frames import drawn_frames
from fer_edge.export.parity.outputs import Parity, compare_outputs, require_parity
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import fold_weight_quantizers
from fer_edge.graph.tensorrt_rewrites import cast_input_first
from fer_edge.graph.weight_compression import STORAGE, compress_head, compress_parts
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.model.fake_quantization import fixed
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.qat import load_quantised
from fer_edge.train.run_folder import TrainRun

__all__ = ["export_run", "run_outputs"]

ROUNDING_TOLERANCE: Final = 0.01
"""For INT8 graphs: the change of a feature when a value half-way between two steps is rounded the other way."""


def export_run(
    run: TrainRun,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle with the run's FP32 encoder and head.

    A run of quantization-aware training also gives both INT8 forms with the learnt ranges, as ``int8-qat`` and
    ``int8-trt-qat``. No provider selects these until `fer-edge calibrate` has passed them through the gate.

    Args:
        run: a finished run.
        out: the bundle's folder.
        name: the bundle's name; the folder's by default.
        licence: of the weights; by default what the terms of known data sets impose, else "not stated".
        tolerance: largest difference between torch and ONNX Runtime, relative to its output's size.
        overwrite: replace a bundle at `out`.

    Raises:
        InputError: the run is not finished, or its LDA was never fitted.
        GateError: the graphs differ from torch; nothing is written.
        OutputError: the bundle cannot be written.
    """
    model, _ = run.load_model()
    if not bool(model.head.lda.fitted):
        raise InputError(f"{run.path}: the LDA was never fitted; train the run to its end")
    exported = export_network(model, window=run.recipe.sequence.window, tolerance=tolerance)
    manifest = _manifest(run, model, exported, name=name or out.name, licence=licence)
    graphs = exported.by_sha256
    if "qat" in run.record:
        for form in FORMS:
            variant, made = _int8_variant(run, form, exported)
            manifest = manifest.with_variant(variant)
            graphs |= {sha256_bytes(data): data for data in made}
    history = Provenance(training=run.training, outputs={"fp32": exported.outputs})
    manifest, graphs = with_cards(manifest, graphs)
    return create_bundle(out, manifest, graphs, provenance=history, overwrite=overwrite)


def _int8_variant(run: TrainRun, form: Form, exported: ExportedNetwork) -> tuple[Variant, tuple[bytes, ...]]:
    """Export one INT8 form with the ranges that the run learnt; no gate has judged it."""
    rounding, window = load_quantised(run, form), run.recipe.sequence.window
    encoder = Graph.read(encoder_graph(fixed(rounding), run.recipe.model), name=f"the {form} encoder")
    fold_weight_quantizers(encoder)
    cast_input_first(encoder)
    parity = _rounding_parity(rounding, encoder.write(), run)
    require_parity(parity, tolerance=ROUNDING_TOLERANCE, what=f"the exported {form} encoder against torch")
    head = Graph.read(exported.graphs["head"], name="the head")
    compress_parts(encoder, head, form=form)
    graphs = [encoder.write(name=f"the {form} encoder"), head.write(name=f"the {form} head")]
    crowd = _crowd_head(run.record, exported)
    if crowd is not None:
        votes = Graph.read(exported.graphs["crowd"], name="the head crowd")
        compress_head(votes, form=form)
        graphs.append(votes.write(name=f"the {form} head crowd"))
        file = graph_file(graphs[2], dimensions={"B": 1, "T": window}, name=f"the {form} head crowd")
        crowd = replace(crowd, graph=file, metrics={})
    measured = run.record["quantised"]
    trained = measured["form"] == form
    accuracy = AccuracyReport.from_json(measured["choose"])
    return Variant(
        name=form + QAT_SUFFIX,
        precision="int8",
        encoder=graph_file(graphs[0], dimensions={"N": 1}, name=f"the {form} encoder"),
        head=graph_file(graphs[1], dimensions={"B": 1, "T": window}, name=f"the {form} head"),
        crowd=crowd,
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
        parity={"encoder": encode(parity)},
    ), tuple(graphs)


def _rounding_parity(rounding: nn.Module, graph: bytes, run: TrainRun) -> Parity:
    """Compare the Q/DQ graph with the rounding encoder in torch, on drawn faces.

    ONNX Runtime's optimisations are off: an engine's handling of Q/DQ is the gate's business.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    frames, names = drawn_frames(max(ENCODER_SHAPES), run.recipe.preprocess), ["features", "attention"]
    pairs, shapes = [], []
    for count in ENCODER_SHAPES:
        part = frames[:count]
        with torch.no_grad():
            expected = [value.numpy() for value in rounding(torch.from_numpy(part))]
        got = session.run(names, {"frames": part})
        pairs.append((dict(zip(names, expected, strict=True)), dict(zip(names, got, strict=True))))
        shapes.append(tuple(part.shape))
    return compare_outputs(pairs, shapes)


def run_outputs(run: TrainRun) -> TorchNetwork:
    """Open a run's network in torch, for `fer-edge parity`.

    Raises:
        InputError: the run is not finished.
    """
    return TorchNetwork(run.load_model()[0])


def _crowd_head(record: Mapping[str, Any], exported: ExportedNetwork) -> CrowdHead | None:
    measured = record.get("crowd")
    if measured is None:
        return None
    return CrowdHead(
        graph=exported.files["crowd"],
        temperature=measured["temperature"],
        unknown_threshold=measured["unknown_threshold"],
        not_judgeable_threshold=measured["not_judgeable_threshold"],
        metrics={measured["split"]: CrowdAccuracy.from_json(measured["choose"])},
    )


def _manifest(
    run: TrainRun, model: AttentionCnnBiLstm, exported: ExportedNetwork, *, name: str, licence: str | None
) -> Manifest:
    record, recipe = run.record, run.recipe
    accuracy, data = AccuracyReport.from_json(record["choose"]), used_data(run.training)
    variant = Variant(
        name="fp32",
        precision="fp32",
        encoder=exported.files["encoder"],
        head=exported.files["head"],
        crowd=_crowd_head(record, exported),
        how_made={"exporter": f"torch {record['versions']['torch']}, opset {OPSET}, traced, constants folded"},
        temperature=record["temperature"],
        unknown_threshold=record["unknown_threshold"],
        metrics={accuracy.split: accuracy},
        parity=exported.parity,
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
        class_frequencies={
            reading: shares
            for reading, shares in record.get("class_frequencies", {}).items()
            if reading in variant.readings
        },
        licence=licence or weights_licence(data),
        intended_use=intended_use(run.labels, data),
        data=data,
        model={
            "architecture": "attention CNN-BiLSTM",
            "config": asdict(recipe.model),
            "parameters": sum(part.numel() for each in (model.encoder, model.head) for part in each.parameters()),
            "macs_encoder": encoder_macs(recipe.model),
            "macs_head": head_macs(recipe.model, recipe.sequence.window),
        },
    )
