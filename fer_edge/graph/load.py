"""ONNX bytes to a checked model and back."""

from __future__ import annotations

from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from fer_edge.core.errors import InputError
from fer_edge.core.onnx_wire import graph_faults

__all__ = ["MAX_IR_VERSION", "MAX_OPSET", "dump_graph", "graph_opset", "load_graph"]

MAX_OPSET: Final = 17
MAX_IR_VERSION: Final = 8
"""Newest opset and IR that a bundle's graph may have: ONNX Runtime and TensorRT of JetPack 6 read them."""


def load_graph(data: bytes, *, name: str = "the graph") -> ModelProto:
    """Parse and check an ONNX file.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        InputError: truncated or foreign bytes, an invalid graph, weights in other files or that are not finite.
    """
    if faults := graph_faults(data):
        raise InputError(f"{name} cannot be used: {'; '.join(faults)}; export it again")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{name} is not a valid ONNX graph: {str(error).strip()}") from error
    return model


def dump_graph(model: ModelProto, *, name: str = "the graph") -> bytes:
    """Serialise a model for a bundle; the same model gives the same bytes.

    Shapes of inner tensors, which every reader derives anew, are left out: a tenth of a small network's file.

    Raises:
        InputError: as `load_graph`, or an opset or IR newer than `MAX_OPSET`, `MAX_IR_VERSION`.
    """
    opset = graph_opset(model)
    if opset > MAX_OPSET or model.ir_version > MAX_IR_VERSION:
        raise InputError(
            f"{name} has opset {opset} and IR {model.ir_version}; expected at most opset {MAX_OPSET} and IR "
            f"{MAX_IR_VERSION}, the newest that JetPack 6 reads"
        )
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    data: bytes = bare.SerializeToString(deterministic=True)
    load_graph(data, name=name)
    return data


def graph_opset(model: ModelProto) -> int:
    """Version of the default operator set.

    Raises:
        InputError: the graph imports none.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise InputError("the graph imports no version of ONNX's default operator set")
