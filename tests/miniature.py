"""A miniature of the real network, seeded: residual convolutions, BiLSTM over region tokens, attention, BiLSTM head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.bundle import Bundle, Manifest, PreprocessSpec, SequenceSpec, Variant
from fer_edge.core.bundle_writer import create_bundle, update_bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.provenance import Provenance
from fer_edge.core.variant import CrowdHead
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph

SIZE = 16
TOKENS = 4
CHANNELS = 16
HIDDEN = 12
FEATURES = 2 * HIDDEN
WINDOW = 4
GAIN = 0.02

Weights = dict[str, NDArray[np.generic]]


def miniature_encoder(*, seed: int = 0, outlier: float = 1.0) -> ModelProto:
    """`frames` uint8 (N, 16, 16) -> `features` float32 (N, 24), `attention` float32 (N, 4).

    Args:
        seed: of the weights.
        outlier: factor on one channel that nothing reads: the larger it is, the fewer of a tensor's 8-bit steps are
            left for the other channels.
    """
    random = np.random.default_rng(seed)
    last = _normal(random, (CHANNELS, 8, 3, 3), 0.25)
    last[0] *= outlier
    weights: Weights = {
        "plane": np.array([1], np.int64),
        "white": np.float32(255),
        "epsilon": np.float32(1e-6),
        "stem": _normal(random, (8, 1, 3, 3), 0.5),
        "stem_bias": _normal(random, (8,), 0.2),
        "inner": _normal(random, (8, 8, 3, 3), 0.2),
        "last": last,
        "last_bias": _normal(random, (CHANNELS,), 0.2),
        "token_shape": np.array([0, CHANNELS, TOKENS], np.int64),
        "shortcut": _normal(random, (CHANNELS, FEATURES), 0.4),
        "query": _normal(random, (FEATURES, 1), 0.5),
        "last_axis": np.array([2], np.int64),
        "token_axis": np.array([1], np.int64),
        **_lstm_weights(random, "regions", CHANNELS),
    }
    weights["shortcut"][0] = 0
    weights["regions_W"][:, :, 0] = 0
    nodes = [
        _node("Unsqueeze", ["frames", "plane"], "planes"),
        _node("Cast", ["planes"], "pixels", to=TensorProto.FLOAT),
        _node("Div", ["pixels", "white"], "scaled"),
        _node("ReduceMean", ["scaled"], "mean", axes=[2, 3]),
        _node("Sub", ["scaled", "mean"], "centred"),
        _node("Mul", ["centred", "centred"], "squared"),
        _node("ReduceMean", ["squared"], "variance", axes=[2, 3]),
        _node("Add", ["variance", "epsilon"], "floored"),
        _node("Sqrt", ["floored"], "deviation"),
        _node("Div", ["centred", "deviation"], "normal"),
        _node("Conv", ["normal", "stem", "stem_bias"], "stem_out", pads=[1, 1, 1, 1], strides=[2, 2]),
        _node("Relu", ["stem_out"], "stem_active"),
        _node("Conv", ["stem_active", "inner"], "inner_out", pads=[1, 1, 1, 1]),
        _node("Add", ["inner_out", "stem_active"], "residual"),
        _node("Relu", ["residual"], "residual_active"),
        _node("Conv", ["residual_active", "last", "last_bias"], "last_out", pads=[1, 1, 1, 1], strides=[2, 2]),
        _node("Relu", ["last_out"], "last_active"),
        _node("AveragePool", ["last_active"], "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Reshape", ["pooled", "token_shape"], "channels_tokens"),
        _node("Transpose", ["channels_tokens"], "tokens", perm=[0, 2, 1]),
        *_bilstm_nodes("regions", "tokens"),
        _node("MatMul", ["tokens", "shortcut"], "direct"),
        _node("Add", ["regions_out", "direct"], "regions"),
        _node("MatMul", ["regions", "query"], "scores"),
        _node("Squeeze", ["scores", "last_axis"], "flat_scores"),
        _node("Softmax", ["flat_scores"], "attention", axis=1),
        _node("Unsqueeze", ["attention", "last_axis"], "column"),
        _node("Mul", ["regions", "column"], "weighted"),
        _node("ReduceSum", ["weighted", "token_axis"], "features", keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIZE, SIZE])]
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N", TOKENS]),
    ]
    return _model("encoder", nodes, inputs, outputs, weights)


def miniature_head(
    *, seed: int = 1, gain: float = GAIN, bias: NDArray[np.float32] | None = None, classes: int = 7
) -> ModelProto:
    """`features` float32 (B, T, 24), `length` int64 (B,) -> `logits` float32 (B, C), `attention` float32 (B, T).

    Args:
        seed: of the weights.
        gain: factor on the logits, before the bias.
        bias: float32 (C,) of the logits.
        classes: number of logits.
    """
    random = np.random.default_rng(seed)
    weights: Weights = {
        "query": _normal(random, (FEATURES, 1), 0.5),
        "last_axis": np.array([2], np.int64),
        "time_axis": np.array([1], np.int64),
        "hundredth": np.float32(0.01),
        "lda": _normal(random, (FEATURES, 6), 1.0),
        "classes": np.float32(gain) * _normal(random, (classes, 6), 1.0),
        "class_bias": np.zeros(classes, np.float32) if bias is None else bias,
        **_lstm_weights(random, "frames", FEATURES),
    }
    nodes = [
        *_bilstm_nodes("frames", "features"),
        _node("Add", ["frames_out", "features"], "refined"),
        _node("MatMul", ["refined", "query"], "scores"),
        _node("Squeeze", ["scores", "last_axis"], "flat_scores"),
        _node("Softmax", ["flat_scores"], "attention", axis=1),
        _node("Unsqueeze", ["attention", "last_axis"], "column"),
        _node("Mul", ["refined", "column"], "weighted"),
        _node("ReduceSum", ["weighted", "time_axis"], "context", keepdims=0),
        _node("MatMul", ["context", "lda"], "discriminants"),
        _node("Gemm", ["discriminants", "classes", "class_bias"], "raw", transB=1),
        _node("Cast", ["length"], "count", to=TensorProto.FLOAT),
        _node("Unsqueeze", ["count", "time_axis"], "counts"),
        _node("Mul", ["counts", "hundredth"], "offset"),
        _node("Add", ["raw", "offset"], "logits"),
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


def centred_head(encoder: ModelProto) -> ModelProto:
    """A head whose logits on this encoder's features are around 0 and spread by 2, so that every label is seen."""
    features = run_graph(encoder, {"frames": miniature_frames(64, seed=3)})["features"][:, None]
    logits = run_graph(miniature_head(), {"features": features, "length": np.ones(64, np.int64)})["logits"]
    spread = float(2 / (logits - logits.mean(axis=0)).std())
    return miniature_head(gain=GAIN * spread, bias=-spread * logits.mean(axis=0))


def miniature_bundle(path: Path, *, outlier: float = 1.0) -> Bundle:
    """A bundle of the two graphs as its variant `fp32`."""
    encoder = miniature_encoder(outlier=outlier)
    graphs = [model.SerializeToString() for model in (encoder, centred_head(encoder))]
    variant = Variant(
        name="fp32",
        precision="fp32",
        encoder=graph_file(graphs[0], dimensions={"N": 1}),
        head=graph_file(graphs[1], dimensions={"B": 1, "T": WINDOW}),
        unknown_threshold=0.25,
    )
    manifest = Manifest(
        name="miniature",
        created="2025-01-31T12:00:00+00:00",
        preprocess=PreprocessSpec(size=SIZE),
        sequence=SequenceSpec(window=WINDOW, feature_size=FEATURES),
        variants=(variant,),
        licence="test weights, random",
        intended_use="tests",
    )
    by_sha256 = {sha256_bytes(graph): graph for graph in graphs}
    return create_bundle(path, manifest, by_sha256, provenance=Provenance(training={"data": "noise"}))


def with_crowd(bundle: Bundle) -> Bundle:
    """Add a head `crowd` to the bundle's variant `fp32`."""
    graph = miniature_head(seed=9, gain=0.2, classes=8).SerializeToString()
    head = CrowdHead(graph=graph_file(graph, dimensions={"B": 1, "T": WINDOW}), not_judgeable_threshold=0.9)
    variant = replace(bundle.variant("fp32"), crowd=head)
    return update_bundle(bundle, bundle.manifest.with_variant(variant), {sha256_bytes(graph): graph})


def with_votes(dataset: Dataset) -> Dataset:
    """Ten votes for each row's label, and one for unknown."""
    splits = {}
    for name, split in dataset.splits.items():
        votes = np.zeros((len(split), len(FERPLUS_VOTES)), np.uint8)
        columns = [FERPLUS_VOTES.index(EXPRESSIONS[label]) for label in split.labels]
        votes[np.arange(len(split)), columns] = 10
        votes[:, FERPLUS_VOTES.index("unknown")] = 1
        splits[name] = replace(split, votes=votes)
    return replace(dataset, splits=splits)


def noise_dataset(*, train: int = 140, choose: int = 70, leaked: int = 5) -> Dataset:
    """Blurred noise, labelled by the miniature itself but for every third row.

    The first `leaked` rows of `PublicTest` also stand in `Training`.
    """
    random = np.random.default_rng(7)
    splits = {}
    for name, count, first in (("Training", train, 0), ("PublicTest", choose, train)):
        images = miniature_frames(count, seed=int(random.integers(1 << 16)))
        if name == "PublicTest":
            images[:leaked] = splits["Training"].images[:leaked]
        labels = _seen_labels(images)
        labels[::3] = np.arange(len(labels[::3])) % 7
        splits[name] = StillSet(name=name, images=images, labels=labels, rows=np.arange(first, first + count))
    roles = {"train": "Training", "choose": "PublicTest"}
    return Dataset(name="noise", source="noise", layout="memory", splits=splits, roles=roles)  # type: ignore[arg-type]


def _seen_labels(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    encoder = miniature_encoder()
    features = run_graph(encoder, {"frames": images})["features"][:, None]
    length = np.ones(len(images), np.int64)
    return run_graph(centred_head(encoder), {"features": features, "length": length})["logits"].argmax(axis=1)


def miniature_frames(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (count, 16, 16): noise at a quarter of the size, enlarged, with a little fine noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 216, (count, SIZE // 4, SIZE // 4)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + random.integers(-20, 21, coarse.shape)).astype(np.uint8)


def run_graph(model: ModelProto | Graph, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Outputs by name, computed by ONNX Runtime on one thread."""
    model = model.to_model() if isinstance(model, Graph) else model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _normal(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[np.float32]:
    return random.normal(0, scale, shape).astype(np.float32)


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, [output], f"{kind.lower()}/{output}", **attributes)


def _lstm_weights(random: np.random.Generator, name: str, width: int) -> Weights:
    return {
        f"{name}_W": _normal(random, (2, 4 * HIDDEN, width), 0.3),
        f"{name}_R": _normal(random, (2, 4 * HIDDEN, HIDDEN), 0.3),
        f"{name}_B": _normal(random, (2, 8 * HIDDEN), 0.1),
        f"{name}_shape": np.array([0, 0, 2 * HIDDEN], np.int64),
    }


def _bilstm_nodes(name: str, source: str) -> list[NodeProto]:
    """(N, T, W) `source` -> (N, T, 24) `<name>_out`."""
    weights = [f"{name}_W", f"{name}_R", f"{name}_B"]
    return [
        _node("Transpose", [source], f"{name}_steps", perm=[1, 0, 2]),
        _node("LSTM", [f"{name}_steps", *weights], f"{name}_Y", hidden_size=HIDDEN, direction="bidirectional"),
        _node("Transpose", [f"{name}_Y"], f"{name}_joined", perm=[2, 0, 1, 3]),
        _node("Reshape", [f"{name}_joined", f"{name}_shape"], f"{name}_out"),
    ]


def _model(
    name: str,
    nodes: list[NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Weights,
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def applied(rewrite: Callable[..., None], model: ModelProto, *arguments: object, **options: object) -> ModelProto:
    """A copy of a model after one pass."""
    graph = Graph(model)
    rewrite(graph, *arguments, **options)
    return graph.to_model()
