"""The tensors of an ONNX graph in a LiteRT file: float or int8, as stored or channels-last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType
from onnx import NodeProto

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array
from fer_edge.export.litert_file import Quantization, Subgraph, Tensor
from fer_edge.graph.graph import Graph, label

__all__ = ["TO_LAST", "LiteRtTensors"]

TO_LAST: Final = (0, 2, 3, 1)
"""The order that makes (N, C, H, W) LiteRT's (N, H, W, C)."""

_TO_FIRST: Final = (0, 3, 1, 2)


class LiteRtTensors:
    """The tensors of one ONNX graph in a subgraph; `litert_operators` adds the operators.

    Args:
        subgraph: where they go.
        graph: every dimension fixed.

    Raises:
        InputError: an input whose dimensions are not fixed.
    """

    def __init__(self, subgraph: Subgraph, graph: Graph) -> None:
        self._into, self._graph = subgraph, graph
        self._infos = graph.infer(strict=True)
        self._made: dict[str, dict[tuple[bool, bool], Tensor]] = {}  # by name: (channels last, int8) -> tensor
        self._done: set[str] = set()  # outputs of nodes that another node's operator computes too
        self._inputs = {
            name: self._keep(name, self._into.tensor(name, self._shape(name), info.dtype))
            for name, info in graph.inputs.items()
        }

    # Tensors

    def _shape(self, name: str) -> tuple[int, ...]:
        info = self._infos.get(name)
        shape = None if info is None else info.fixed_shape
        if shape is None:
            raise InputError(f"LiteRT: got {name!r} of the shape {info and info.shape}, expected fixed dimensions")
        return shape

    def _keep(self, name: str, tensor: Tensor, *, last: bool = False) -> Tensor:
        forms = self._made.setdefault(name, {})
        return forms.setdefault((last, tensor.quantization is not None), tensor)

    def _get(self, name: str, *, last: bool = False, quantized: bool = False) -> Tensor:
        """Return a tensor in one form, converting another of its forms where needed."""
        forms = self._made.setdefault(name, {})
        if (last, quantized) in forms:
            return forms[last, quantized]
        if not forms:
            return self._keep(name, self._constant(name, last=last), last=last)
        if (not last, quantized) in forms:
            turned = self._turned(forms[not last, quantized], TO_LAST if last else _TO_FIRST)
            return self._keep(name, turned, last=last)
        assert not quantized  # callers ask `_is_quantized` first
        held = self._get(name, last=last, quantized=True)
        return self._keep(name, self._op("DEQUANTIZE", [held], held.shape), last=last)

    def _is_quantized(self, name: str) -> bool:
        return any(quantized for _, quantized in self._made.get(name, ()))

    def _is_last(self, name: str) -> bool:
        """Whether a tensor is held channels-last only."""
        return all(last for last, _ in self._made.get(name, {(False, False): None}))

    def _constant(self, name: str, *, last: bool) -> Tensor:
        value = self._graph.stored_constant(name)
        if value is None:
            raise InputError(f"LiteRT: got {name!r}, which no node computes, expected a constant; export it again")
        return self._into.constant(name, value.transpose(TO_LAST) if last else value)

    def _op(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        quantization: Quantization | None = None,
        **options: Any,
    ) -> Tensor:
        """Append an operator with one output."""
        made = self._into.tensor(kind.lower(), shape, "int8" if quantization else dtype, quantization=quantization)
        self._into.operator(kind, inputs, [made], options)
        return made

    def _like(self, kind: str, inputs: Sequence[Tensor], shape: Sequence[int], **options: Any) -> Tensor:
        """Append an operator that keeps the first input's type and scales."""
        first = inputs[0]
        return self._op(kind, inputs, shape, dtype=first.dtype, quantization=first.quantization, **options)

    def _ints(self, *values: int) -> Tensor:
        return self._into.constant("sizes", np.array(values, np.int32))

    def _turned(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        shape = tuple(tensor.shape[axis] for axis in order)
        moved = [axis for axis in order if tensor.shape[axis] > 1]
        if moved == sorted(moved):  # only dimensions of size 1 change place
            return self._reshaped(tensor, shape)
        return self._like("TRANSPOSE", [tensor, self._ints(*order)], shape)

    def _reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        if tensor.shape == tuple(shape):
            return tensor
        return self._like("RESHAPE", [tensor, self._ints(*shape)], shape, newShape=list(shape))

    # Quantizers and activations

    def _scales(self, node: NodeProto) -> tuple[Array, Array]:
        scale, zero = (self._graph.constant(name) for name in node.input[1:3])
        if scale is None or zero is None or zero.dtype not in (np.int8, np.uint8):
            raise self._refusal(node, "constant scales and an int8 or uint8 zero point")
        return scale, zero

    def _of_activation(self, node: NodeProto) -> Quantization:
        """Read the scale of a quantizer of one scale; an unsigned zero point is moved into the signed range."""
        scale, zero = self._scales(node)
        if scale.size != 1:
            raise self._refusal(node, "one scale for the whole tensor")
        point = int(zero.reshape(())) - (128 if zero.dtype == np.uint8 else 0)
        return Quantization(scales=(float(scale.reshape(())),), zero_point=point)

    def _only_reader(self, tensor: str) -> NodeProto | None:
        readers = self._graph.consumers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self._graph.outputs else None

    def _fused_relu(self, node: NodeProto) -> tuple[str, int]:
        """Return the name of the output and the activation: a Relu that alone reads it is part of the operator."""
        reader = self._only_reader(node.output[0])
        if reader is None or reader.op_type != "Relu":
            return node.output[0], ActivationFunctionType.NONE
        self._done.add(reader.output[0])
        return reader.output[0], ActivationFunctionType.RELU

    def _quantized_output(self, node: NodeProto) -> tuple[str, int, Quantization] | None:
        """Return the quantizer's output, the activation and the scale, where a quantizer alone reads the node."""
        relu = self._only_reader(node.output[0])
        quantizer = self._only_reader(relu.output[0]) if relu is not None and relu.op_type == "Relu" else relu
        if quantizer is None or quantizer.op_type != "QuantizeLinear":
            return None
        _, activation = self._fused_relu(node)
        self._done.add(quantizer.output[0])
        return quantizer.output[0], activation, self._of_activation(quantizer)

    def _refusal(self, node: NodeProto, expected: str) -> InputError:
        return InputError(f"LiteRT: got {node.op_type} {label(node)!r}, expected {expected}")
