"""Weight compression: float weights stored as int8 with one scale an output, computed in float."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import Form
from fer_edge.core.types import Array, Float32
from fer_edge.graph.graph import Graph, attribute

__all__ = ["STORAGE", "WeightStorage", "compress_head", "compress_parts", "compress_weights", "restore_weights"]

WeightStorage = Literal["cast", "dequantize"]

STORAGE: Final[Mapping[Form, WeightStorage]] = {"int8": "cast", "int8-trt": "dequantize"}
"""Storage of the float weights of LSTMs and matrix products, by INT8 form."""

_KINDS: Final = ("LSTM", "MatMul", "Gemm")
_LSTM_WEIGHTS: Final = (1, 2)  # W (directions, 4H, I) and R (directions, 4H, H)
_SMALLEST: Final = 1024  # elements; for fewer, scales and extra nodes cost more than int8 saves
# Both parts' attention depends on the LSTMs, queries and keys. In the head it ends before the LDA, from which on
# weights stay float.
_LAST_COMPRESSED: Final = "attention"


def compress_parts(encoder: Graph, head: Graph, *, form: Form) -> None:
    """Compress the sequence weights of both parts as the engines of an INT8 form need them.

    Args:
        encoder: quantized for the form; edited in place.
        head: float; edited in place.
        form: selects the storage.
    """
    compress_weights(encoder, storage=STORAGE[form], until=_LAST_COMPRESSED)
    compress_head(head, form=form)


def compress_head(head: Graph, *, form: Form) -> None:
    """Compress the sequence weights of a float head, in place, as the engines of an INT8 form need them."""
    compress_weights(head, storage=STORAGE[form], until=_LAST_COMPRESSED)


def compress_weights(
    graph: Graph, *, storage: WeightStorage, until: str | None = None, kinds: Collection[str] = _KINDS
) -> None:
    """Store the weights of LSTM, MatMul and Gemm as int8, symmetric, one scale for every output of every direction.

    Biases and weights below 1,024 elements stay float. The weights are restored to float before they are used:

    - ``"cast"``: by Cast and Mul, which ONNX Runtime and OpenVINO fold at load: no cost in a run. (ONNX Runtime
      computes a DequantizeLinear in every run, which costs a small LSTM as much as its own arithmetic.)
    - ``"dequantize"``: by DequantizeLinear, the only reader of int8 constants that TensorRT accepts.

    Args:
        graph: edited in place; weights that are no float constants stay.
        storage: one of the two.
        until: a tensor; only nodes that it is computed from are changed. None: all nodes.
        kinds: some of LSTM, MatMul and Gemm.

    Raises:
        InputError: `storage` is unknown, or no node makes `until`.
    """
    if storage not in ("cast", "dequantize"):
        raise InputError(f"storage: got {storage!r}, expected 'cast' or 'dequantize'")
    if until is not None and graph.producer(until) is None:
        raise InputError(f"until: got {until!r}, expected a computed tensor such as {', '.join(graph.outputs)}")
    touched = graph.nodes if until is None else graph.ancestors([until])
    ahead: list[NodeProto] = []
    restored: dict[tuple[str, int], str] = {}
    for node, position, axis in _weight_inputs(touched):
        name = node.input[position]
        weight = graph.constant(name)
        if node.op_type not in kinds or weight is None or weight.dtype != np.float32 or weight.size < _SMALLEST:
            continue
        if (name, axis) not in restored:
            nodes = _stored(graph, weight, name, axis, storage=storage)
            ahead.extend(nodes)
            restored[name, axis] = nodes[-1].output[0]
        node.input[position] = restored[name, axis]
    graph.set_nodes([*ahead, *graph.nodes])
    graph.prune()


def restore_weights(graph: Graph) -> None:
    """Undo `compress_weights`: compressed weights become float constants of the same values.

    Weights of an operator with a quantized input stay int8: the engine computes with them. TensorRT would run a
    dequantizer before a float product every time.
    """
    known: dict[str, Array] = {}
    for node, position, _ in _weight_inputs(graph.nodes):
        name, source = node.input[position], graph.producer(node.input[0])
        if graph.constant(name) is not None or (source is not None and source.op_type == "DequantizeLinear"):
            continue
        value = graph.stored_constant(name)
        if value is not None:
            known[name] = value.astype(np.float32)
    for name, value in known.items():
        graph.initializers[name] = numpy_helper.from_array(value, name)
    graph.set_nodes(node for node in graph.nodes if not known.keys() & set(node.output))
    graph.prune()


def _weight_inputs(nodes: Iterable[NodeProto]) -> Iterator[tuple[NodeProto, int, int]]:
    """Node, input and the axis along which one output sums; the scales run over all other axes."""
    for node in nodes:
        if node.op_type == "LSTM":
            yield from ((node, position, 2) for position in _LSTM_WEIGHTS)
        elif node.op_type == "MatMul":
            yield node, 1, 0
        elif node.op_type == "Gemm":
            yield node, 1, 1 if attribute(node, "transB", 0) else 0


def _stored(graph: Graph, weight: Float32, name: str, axis: int, *, storage: WeightStorage) -> list[NodeProto]:
    """Add the initialisers that hold `weight`; return the nodes that restore it, its maker last."""
    quantized, scale = _int8(weight, axis)
    stored, factor, floats, back = (graph.free_name(f"{name}_{part}") for part in ("int8", "scale", "float", "weight"))
    if storage == "cast":
        tensors: dict[str, Array] = {stored: quantized, factor: scale}
        nodes = [
            helper.make_node("Cast", [stored], [floats], floats, to=TensorProto.FLOAT),
            helper.make_node("Mul", [floats, factor], [back], back),
        ]
    else:
        # Before opset 21 DequantizeLinear takes scales along one axis only: directions and rows become one axis.
        flat = quantized.reshape(-1, weight.shape[-1])
        zero_point, shape = graph.free_name(f"{name}_zero_point"), graph.free_name(f"{name}_shape")
        tensors = {stored: flat, factor: scale.reshape(-1), zero_point: np.zeros(scale.size, np.int8)}
        along = 1 if axis == 0 else 0
        nodes = [helper.make_node("DequantizeLinear", [stored, factor, zero_point], [floats], floats, axis=along)]
        if flat.shape != weight.shape:
            tensors[shape] = np.asarray(weight.shape, np.int64)
            nodes.append(helper.make_node("Reshape", [floats, shape], [back], back))
    for key, value in tensors.items():
        graph.initializers[key] = numpy_helper.from_array(value, key)
    return nodes


def _int8(weight: Float32, axis: int) -> tuple[Array, Float32]:
    """Values in -127 .. 127 and their scales, which broadcast against them."""
    peak = np.abs(weight).max(axis=axis, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale
