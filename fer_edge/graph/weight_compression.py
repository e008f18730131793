"""Float weights stored as int8 with one scale a row, and how each INT8 form stores them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import Form
from fer_edge.core.types import Array, Float32
from fer_edge.graph.graph import GraphIndex, attribute, constant_value, drop_dead_nodes, drop_unused, dump_graph

__all__ = ["STORAGE", "WeightStorage", "restore_weights", "store_weights_int8", "stored_form"]

WeightStorage = Literal["cast", "dequantize"]

_STORED_KINDS: Final = ("LSTM", "MatMul", "Gemm")
_LSTM_WEIGHTS: Final = (1, 2)  # W (directions, 4H, I) and R (directions, 4H, H)
_SMALLEST: Final = 1024  # elements; below that the scales and the extra nodes eat the gain


def store_weights_int8(
    model: ModelProto,
    *,
    storage: WeightStorage,
    until: str | None = None,
    kinds: Collection[str] = _STORED_KINDS,
) -> ModelProto:
    """Store the weights of LSTM, MatMul and Gemm as int8, symmetric, one scale for every output of every direction.

    Biases stay float, as do weights below 1,024 elements. The weights come back to float before they are used:

    - ``"cast"``: by Cast and Mul, which ONNX Runtime and OpenVINO fold when they load the graph, so that it runs as
      fast as from float weights. (ONNX Runtime keeps a DequantizeLinear for its own fusions and would compute it anew
      in every run, which costs a small LSTM as much as its own arithmetic.)
    - ``"dequantize"``: by DequantizeLinear, the only reader of int8 constants that TensorRT accepts.

    Args:
        model: not changed. Weights that are no float constants (stored so already, say) are left alone.
        storage: one of the two.
        until: a tensor; only the nodes that it is computed from are touched. All of them without it.
        kinds: operators to touch, some of LSTM, MatMul and Gemm.

    Raises:
        InputError: `storage` is neither of the two, or no node makes `until`.
    """
    if storage not in ("cast", "dequantize"):
        raise InputError(f"weight storage {storage!r} is unknown; expected 'cast' or 'dequantize'")
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    if until is not None and index.producer(until) is None:
        raise InputError(f"no node of the graph makes {until!r}; its outputs are {', '.join(index.outputs)}")
    touched = result.graph.node if until is None else index.ancestors([until])
    ahead: list[NodeProto] = []
    readers: dict[tuple[str, int], str] = {}
    for node, position, axis in _weight_inputs(touched):
        if node.op_type not in kinds:
            continue
        name = node.input[position]
        weight = index.constant(name)
        if weight is None or weight.dtype != np.float32 or weight.size < _SMALLEST:
            continue
        if (name, axis) not in readers:
            tensors, nodes = _stored(weight, name, axis, index=index, storage=storage)
            result.graph.initializer.extend(tensors)
            ahead.extend(nodes)
            readers[name, axis] = nodes[-1].output[0]
        node.input[position] = readers[name, axis]
    body = [*ahead, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(body)
    drop_unused(result)
    return result


def restore_weights(model: ModelProto) -> ModelProto:
    """Undo `store_weights_int8`: weights that only storage made int8 are float constants again, of the same values.

    Weights of an operator whose input is quantized too stay as they are: there the int8 is what is computed with.
    TensorRT would take a dequantizer before a float product as work for every run.

    Args:
        model: not changed.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    known: dict[str, Array] = {}
    for node, position, _ in _weight_inputs(result.graph.node):
        name = node.input[position]
        source = index.producer(node.input[0])
        if index.constant(name) is not None or (source is not None and source.op_type == "DequantizeLinear"):
            continue
        value = constant_value(index, name)
        if value is not None:
            known[name] = value.astype(np.float32)
    body = [node for node in result.graph.node if not known.keys() & set(node.output)]
    del result.graph.node[:]
    result.graph.node.extend(body)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in known.items())
    drop_dead_nodes(result)
    drop_unused(result)
    return result


def _weight_inputs(nodes: Any) -> Iterator[tuple[NodeProto, int, int]]:
    """Node, input and the axis along which one output sums; the scales run over all other axes."""
    for node in nodes:
        if node.op_type == "LSTM":
            yield from ((node, position, 2) for position in _LSTM_WEIGHTS)
        elif node.op_type == "MatMul":
            yield node, 1, 0
        elif node.op_type == "Gemm":
            yield node, 1, 1 if attribute(node, "transB", 0) else 0


def _stored(
    weight: Float32, name: str, axis: int, *, index: GraphIndex, storage: WeightStorage
) -> tuple[list[TensorProto], list[NodeProto]]:
    """The initialisers that hold `weight`, and the nodes that give it back; the last node makes it."""
    quantized, scale = _int8(weight, axis)
    stored, factor, floats, back = (index.free_name(f"{name}_{part}") for part in ("int8", "scale", "float", "weight"))
    if storage == "cast":
        tensors: dict[str, Array] = {stored: quantized, factor: scale}
        nodes = [
            helper.make_node("Cast", [stored], [floats], floats, to=TensorProto.FLOAT),
            helper.make_node("Mul", [floats, factor], [back], back),
        ]
    else:
        # Before opset 21 DequantizeLinear takes scales along one axis only: directions and rows become one axis.
        flat = quantized.reshape(-1, weight.shape[-1])
        zero_point, shape = index.free_name(f"{name}_zero_point"), index.free_name(f"{name}_shape")
        tensors = {stored: flat, factor: scale.reshape(-1), zero_point: np.zeros(scale.size, np.int8)}
        along = 1 if axis == 0 else 0
        nodes = [helper.make_node("DequantizeLinear", [stored, factor, zero_point], [floats], floats, axis=along)]
        if flat.shape != weight.shape:
            tensors[shape] = np.asarray(weight.shape, np.int64)
            nodes.append(helper.make_node("Reshape", [floats, shape], [back], back))
    return [numpy_helper.from_array(value, key) for key, value in tensors.items()], nodes


def _int8(weight: Float32, axis: int) -> tuple[NDArray[np.int8], Float32]:
    """Values in -127 .. 127 and their scales, which broadcast against them."""
    peak = np.abs(weight).max(axis=axis, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


STORAGE: Final[Mapping[Form, WeightStorage]] = {"int8": "cast", "int8-trt": "dequantize"}
"""How each form stores the float weights of its LSTMs and matrix products."""

# Both parts' weighted means depend on the weights before them: the LSTMs, queries and keys. In the head that ends
# before the LDA, from which on weights stay float too.
_LAST_STORED: Final = "attention"


def stored_form(encoder: ModelProto, head: ModelProto, *, form: Form, float_lstm: bool = False) -> tuple[bytes, bytes]:
    """The ONNX files of a form: sequence weights stored as its engines take them, all else as it is.

    Args:
        encoder: quantized as the form wants it; not changed.
        head: float; not changed.
        form: decides on the storage.
        float_lstm: leave the weights of the encoder's LSTMs float.
    """
    kinds = ("MatMul", "Gemm") if float_lstm else ("LSTM", "MatMul", "Gemm")
    parts = (
        store_weights_int8(encoder, storage=STORAGE[form], until=_LAST_STORED, kinds=kinds),
        store_weights_int8(head, storage=STORAGE[form], until=_LAST_STORED),
    )
    encoder_bytes, head_bytes = (
        dump_graph(part, name=f"the {form} {name}") for part, name in zip(parts, ("encoder", "head"), strict=True)
    )
    return encoder_bytes, head_bytes
