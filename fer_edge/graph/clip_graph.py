"""Encoder and head joined into one graph over clips."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.cost import TensorInfo, describe_graph
from fer_edge.graph.tensorrt_rewrites import cast_input_first

__all__ = ["fuse_clip_graph"]

_ENCODER: Final = "encoder/"
_HEAD: Final = "head/"
_CLIP_NAMES: Final = {f"{_HEAD}length": "length", f"{_HEAD}logits": "logits"}


def fuse_clip_graph(encoder: ModelProto, head: ModelProto) -> ModelProto:
    """One graph from a clip to its logits: every frame through the encoder, then the head over the window.

    Args:
        encoder: `frames` uint8 (N, S, S) -> `features` float32 (N, F), ...
        head: `features` float32 (B, T, F), `length` int64 (B,) -> `logits` float32 (B, C), ...

    Returns:
        `frames` uint8 (B, T, S, S), `length` int64 (B,) -> `logits` float32 (B, C), with B and T dynamic.

    Raises:
        InputError: the two do not fit each other, or are not such graphs.
    """
    size, width, classes = _fitting_sizes(encoder, head)
    inside = compose.add_prefix(cast_input_first(encoder), _ENCODER)
    after = compose.add_prefix(head, _HEAD)
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
    body = [node for node in inside.graph.node if node is not cast]
    between = [
        helper.make_node("Shape", ["frames"], ["clip/shape"], "clip/shape"),
        helper.make_node("Slice", ["clip/shape", "clip/first", "clip/third"], ["clip/batch_time"], "clip/batch_time"),
        helper.make_node("Concat", ["clip/batch_time", "clip/width"], ["clip/feature_shape"], "clip/join", axis=0),
        helper.make_node(
            "Reshape", [f"{_ENCODER}features", "clip/feature_shape"], [f"{_HEAD}features"], "clip/to_window"
        ),
    ]
    # The head's own tensors take the clip's names; an Identity in between would leave engines two names to choose from.
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
            *inside.graph.initializer,
            *after.graph.initializer,
            *(numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in constants.items()),
        ],
    )
    return helper.make_model(
        graph,
        opset_imports=encoder.opset_import,
        ir_version=max(encoder.ir_version, head.ir_version),
        producer_name="fer-edge",
    )


def _read_shapes_after_cast(encoder: ModelProto, name: str) -> NodeProto:
    """The Cast that reads the input; every other reader, which is after its shape, reads the Cast's output instead."""
    cast: NodeProto = next(node for node in encoder.graph.node if node.op_type == "Cast" and node.input[0] == name)
    for node in encoder.graph.node:
        if node is not cast and name in node.input:
            node.input[:] = [cast.output[0] if tensor == name else tensor for tensor in node.input]
    return cast


def _fitting_sizes(encoder: ModelProto, head: ModelProto) -> tuple[int, int, int]:
    """Side of a frame, width of a feature vector, number of classes."""
    below, above = describe_graph(encoder), describe_graph(head)
    if below.opset != above.opset:
        raise InputError(f"encoder and head must have one opset, got {below.opset} and {above.opset}")
    frames = _find(below.inputs, "frames", "encoder")
    features = _find(below.outputs, "features", "encoder")
    window = _find(above.inputs, "features", "head")
    _find(above.inputs, "length", "head")
    logits = _find(above.outputs, "logits", "head")
    size, width, classes = frames.shape[-1], features.shape[-1], logits.shape[-1]
    if not (isinstance(size, int) and isinstance(width, int) and isinstance(classes, int)):
        raise InputError(
            f"expected a fixed frame size, feature width and class count, got {frames.shape}, {features.shape} and "
            f"{logits.shape}"
        )
    if window.shape[-1] != width:
        raise InputError(f"the encoder makes features of {width} numbers, the head reads {window.shape[-1]}")
    return size, width, classes


def _find(tensors: tuple[TensorInfo, ...], name: str, part: str) -> TensorInfo:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise InputError(f"the {part} has no {name!r}, only {', '.join(repr(tensor.name) for tensor in tensors)}")
