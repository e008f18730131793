"""A tiny, seeded bundle with the real graphs' inputs and outputs: frames of 16 pixels, features of 8, no LSTM."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fer_edge.core.bundle import Bundle, GraphFile, Manifest, PreprocessSpec, SequenceSpec, Variant
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.core.labels import CROWD_LABELS, EXPRESSIONS, FER2013_FREQUENCIES
from fer_edge.core.variant import CrowdHead

SIZE = 16
FEATURES = 8
TOKENS = 4
WINDOW = 4


def tiny_encoder(*, seed: int = 0) -> onnx.ModelProto:
    """`frames` uint8 (N, 16, 16) -> `features` float32 (N, 8), `attention` float32 (N, 4), with GCN inside."""
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.float32(255),
        "epsilon": np.float32(1e-6),
        "shape": np.array([0, 1, SIZE, SIZE], np.int64),
        "kernel": random.normal(0, 0.5, (FEATURES, 1, 3, 3)).astype(np.float32),
        "dense": random.normal(0, 0.3, (FEATURES, FEATURES)).astype(np.float32),
        "gaze": random.normal(0, 0.3, (FEATURES, TOKENS)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Sub", ["scaled", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["variance"], axes=[1, 2], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["floored"]),
        helper.make_node("Sqrt", ["floored"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Reshape", ["normal", "shape"], ["plane"]),
        helper.make_node("Conv", ["plane", "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["features"]),
        helper.make_node("MatMul", ["flat", "gaze"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIZE, SIZE])]
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N", TOKENS]),
    ]
    return _model("encoder", nodes, inputs, outputs, weights)


def tiny_head(*, seed: int = 1, gain: float = 4.0, classes: int = len(EXPRESSIONS)) -> onnx.ModelProto:
    """`features` float32 (B, T, 8), `length` int64 (B,) -> `logits` float32 (B, C), `attention` float32 (B, T).

    The attention is a softmax over time, `length` a small offset, so that both inputs show in the logits.
    """
    random = np.random.default_rng(seed)
    weights = {
        "query": random.normal(0, 1, (FEATURES, 1)).astype(np.float32),
        "classes": (gain * random.normal(0, 1, (FEATURES, classes))).astype(np.float32),
        "last": np.array([2], np.int64),
        "middle": np.array([1], np.int64),
        "hundredth": np.float32(0.01),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "query"], ["scores"]),
        helper.make_node("Squeeze", ["scores", "last"], ["flat_scores"]),
        helper.make_node("Softmax", ["flat_scores"], ["attention"], axis=1),
        helper.make_node("Unsqueeze", ["attention", "last"], ["column"]),
        helper.make_node("Mul", ["features", "column"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["context"], keepdims=0),
        helper.make_node("MatMul", ["context", "classes"], ["raw"]),
        helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["count", "middle"], ["counts"]),
        helper.make_node("Mul", ["counts", "hundredth"], ["offset"]),
        helper.make_node("Add", ["raw", "offset"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "T", FEATURES]),
        helper.make_tensor_value_info("length", TensorProto.INT64, ["B"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", classes]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["B", "T"]),
    ]
    return _model("head", nodes, inputs, outputs, weights)


def graph_file(data: bytes) -> GraphFile:
    """The manifest's entry for a tiny graph."""
    return GraphFile(sha256=sha256_bytes(data), size_bytes=len(data), opset=17, ir_version=8, parameters=1, macs=None)


def tiny_variant(name: str, encoder: bytes, head: bytes, **changes: object) -> Variant:
    """A variant of the two graphs."""
    variant = Variant(name=name, precision=name, encoder=graph_file(encoder), head=graph_file(head))
    return dataclasses.replace(variant, **changes)  # type: ignore[arg-type]


def tiny_manifest(*variants: Variant, preprocess: PreprocessSpec | None = None) -> Manifest:
    """A manifest around the variants, for a window of 4 at 10 features a second."""
    return Manifest(
        name="tiny",
        created="2025-01-31T12:00:00+00:00",
        preprocess=preprocess or PreprocessSpec(size=SIZE),
        sequence=SequenceSpec(window=WINDOW, feature_size=FEATURES, frame_rate=10.0),
        variants=variants,
        licence="test weights, random",
        intended_use="tests",
    )


def tiny_bundle(
    path: Path,
    *,
    encoder: onnx.ModelProto | bytes | None = None,
    head: onnx.ModelProto | bytes | None = None,
    preprocess: PreprocessSpec | None = None,
    **changes: object,
) -> Bundle:
    """Write a bundle with one variant, `fp32`; `changes` are fields of that variant (`unknown_threshold=0.9`)."""
    graphs = [
        part if isinstance(part, bytes) else part.SerializeToString()
        for part in (tiny_encoder() if encoder is None else encoder, tiny_head() if head is None else head)
    ]
    manifest = tiny_manifest(tiny_variant("fp32", *graphs, **changes), preprocess=preprocess)
    return create_bundle(path, manifest, {sha256_bytes(graph): graph for graph in graphs})


def tiny_crowd_bundle(path: Path, *, seed: int = 5, **changes: object) -> Bundle:
    """Write a bundle whose one variant, `fp32`, has both heads; `changes` are fields of the head `crowd`."""
    encoder, head = (part.SerializeToString() for part in (tiny_encoder(), tiny_head()))
    eight = tiny_head(seed=seed, classes=len(CROWD_LABELS)).SerializeToString()
    crowd = dataclasses.replace(CrowdHead(graph=graph_file(eight)), **changes)  # type: ignore[arg-type]
    manifest = dataclasses.replace(
        tiny_manifest(tiny_variant("fp32", encoder, head, crowd=crowd)),
        class_frequencies={
            "crowd": dict(zip(EXPRESSIONS, (0.09, 0.01, 0.03, 0.27, 0.13, 0.12, 0.35), strict=True)),
            "fer2013": dict(FER2013_FREQUENCIES),
        },
    )
    return create_bundle(path, manifest, {sha256_bytes(graph): graph for graph in (encoder, head, eight)})


def tiny_frames(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (count, 16, 16) of noise, 0..255."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    initialisers = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
