"""Encoder and head joined into one graph over clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto, compose, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph, TensorInfo
from fer_edge.graph.tensorrt_rewrites import cast_input_first

__all__ = ["fuse_clip_graph"]

_ENCODER: Final = "encoder/"
_HEAD: Final = "head/"
_CLIP_NAMES: Final = {f"{_HEAD}length": "length", f"{_HEAD}logits": "logits"}


def fuse_clip_graph(encoder: Graph, head: Graph) -> Graph:
    """Join encoder and head into one graph from a clip to its logits; both stay as they are.

    Args:
        encoder: `frames` uint8 (N, S, S) -> `features` float32 (N, F), ...
        head: `features` float32 (B, T, F), `length` int64 (B,) -> `logits` float32 (B, C), ...

    Returns:
        `frames` uint8 (B, T, S, S), `length` int64 (B,) -> `logits` float32 (B, C), with B and T dynamic.

    Raises:
        InputError: sizes, names or opsets that do not fit.
    """
    size, width, classes = _fitting_sizes(encoder, head)
    cast_first = encoder.copy()
    cast_input_first(cast_first)
    inside = Graph(compose.add_prefix(cast_first.to_model(), _ENCODER))
    after = compose.add_prefix(head.to_model(), _HEAD)
    cast = _read_shapes_after_cast(inside, f"{_ENCODER}frames")
    constants = {
        "clip/frame_shape": [-1, size, size],
        "clip/first": [0],
        "clip/third": [2],
        "clip/width": [width],
    }
    before = [
        helper.make_node("Cast", ["frames"], ["clip/floats"], "clip/to_float", to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["clip/floats", "clip/frame_shape"], list(cast.output), "clip/to_frames"),
    ]
    body = [node for node in inside.nodes if node is not cast]
    between = [
        helper.make_node("Shape", ["frames"], ["clip/shape"], "clip/shape"),
        helper.make_node("Slice", ["clip/shape", "clip/first", "clip/third"], ["clip/batch_time"], "clip/batch_time"),
        helper.make_node("Concat", ["clip/batch_time", "clip/width"], ["clip/feature_shape"], "clip/join", axis=0),
        helper.make_node(
            "Reshape", [f"{_ENCODER}features", "clip/feature_shape"], [f"{_HEAD}features"], "clip/to_window"
        ),
    ]
    # The head's tensors take the clip's names, without an Identity in between: engines name layers after tensors.
    for node in after.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [_CLIP_NAMES.get(name, name) for name in tensors]
    graph = helper.make_graph(
        [*before, *body, *between, *after.graph.node],
        "clip",
        [
            helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", "T", size, size]),
            helper.make_tensor_value_info("length", TensorProto.INT64, ["B"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", classes])],
        [
            *inside.initializers.values(),
            *after.graph.initializer,
            *(numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in constants.items()),
        ],
    )
    version = max(encoder.ir_version, head.ir_version)
    return Graph(
        helper.make_model(graph, opset_imports=encoder.opset_import, ir_version=version, producer_name="fer-edge")
    )


def _read_shapes_after_cast(encoder: Graph, name: str) -> NodeProto:
    """Find the Cast that reads the input and let every other reader, which needs its shape, read the Cast's output."""
    cast = next(node for node in encoder.consumers(name) if node.op_type == "Cast")
    encoder.redirect(name, cast.output[0])
    cast.input[0] = name
    return cast


def _fitting_sizes(encoder: Graph, head: Graph) -> tuple[int, int, int]:
    """Side of a frame, width of a feature vector, number of classes."""
    if encoder.opset != head.opset:
        raise InputError(f"opset: got {encoder.opset} (encoder) and {head.opset} (head), expected one opset")
    frames = _find(encoder.inputs, "frames", "encoder")
    features = _find(encoder.outputs, "features", "encoder")
    window = _find(head.inputs, "features", "head")
    _find(head.inputs, "length", "head")
    logits = _find(head.outputs, "logits", "head")
    size, width, classes = frames.shape[-1], features.shape[-1], logits.shape[-1]
    if not (isinstance(size, int) and isinstance(width, int) and isinstance(classes, int)):
        raise InputError(
            f"sizes: got {frames.shape}, {features.shape} and {logits.shape}, expected fixed frame, feature "
            "and class sizes"
        )
    if window.shape[-1] != width:
        raise InputError(f"features: got {width} (encoder) and {window.shape[-1]} (head), expected one width")
    return size, width, classes


def _find(tensors: Mapping[str, TensorInfo], name: str, part: str) -> TensorInfo:
    if name not in tensors:
        raise InputError(f"the {part}: got {', '.join(map(repr, tensors))}, expected {name!r}")
    return tensors[name]
