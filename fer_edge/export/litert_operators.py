"""ONNX graphs of fixed shapes as LiteRT operators: Q/DQ becomes integer kernels, images become channels-last."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from ai_edge_litert.schema_py_generated import Padding
from onnx import NodeProto, helper

from fer_edge.core.types import Array
from fer_edge.export.litert_file import LiteRtFile, Quantization, Tensor
from fer_edge.export.litert_tensors import TO_LAST, LiteRtTensors
from fer_edge.graph.graph import Graph, attribute

__all__ = ["add_signature"]

_UNARY: Final = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Sqrt": "SQRT", "Tanh": "TANH"}
_REDUCED: Final = {"ReduceMean": "MEAN", "ReduceSum": "SUM"}
_BINARY: Final = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_COMPARED: Final = {"Greater": "GREATER", "Less": "LESS", "Equal": "EQUAL"}
_RESHAPED: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_EVEN_SPLITS: Final = (2, 3, 4)  # what XNNPACK splits in one operator


def add_signature(file: LiteRtFile, graph: Graph, *, name: str) -> None:
    """Add a graph as one signature of a file.

    Convolutions and additions between quantizers become int8 operators with the quantizers' own scales; unsigned
    quantizers become signed ones of the same values (zero point less 128). All else stays float.

    Args:
        file: where the signature goes.
        graph: every dimension fixed, without LSTM nodes (`rewrite_lstm`), batch 1.
        name: the signature's name.

    Raises:
        InputError: a dimension that is not fixed, or a node that has no counterpart here.
    """
    _Lowering(file.subgraph(name), graph).write(file)


class _Lowering(LiteRtTensors):
    """Writes a graph's nodes as operators, in order."""

    def write(self, file: LiteRtFile) -> None:
        for node in self._graph.nodes:
            if node.output[0] not in self._done:
                self._lower(node)
        file.sign(self._into, self._inputs, {name: self._get(name) for name in self._graph.outputs})

    def _lower(self, node: NodeProto) -> None:
        lower = _LOWERED.get(node.op_type)
        if lower is None:
            raise self._refusal(node, f"one of {', '.join(sorted(_LOWERED))}")
        lower(self, node)

    def _cast(self, node: NodeProto) -> None:
        dtype = helper.tensor_dtype_to_np_dtype(attribute(node, "to")).name
        given = self._get(node.input[0])
        self._keep(node.output[0], self._op("CAST", [given], given.shape, dtype=dtype))

    def _quantize(self, node: NodeProto) -> None:
        last = self._is_last(node.input[0])
        given = self._get(node.input[0], last=last)
        made = self._op("QUANTIZE", [given], given.shape, quantization=self._of_activation(node))
        self._keep(node.output[0], made, last=last)

    def _dequantize(self, node: NodeProto) -> None:
        """Let the float tensor be known by its int8 form; weights are read where they are used."""
        if self._graph.constant(node.input[0]) is not None:
            return
        self._made[node.output[0]] = self._made[node.input[0]]

    def _unary(self, node: NodeProto) -> None:
        last = self._is_last(node.input[0])
        given = self._get(node.input[0], last=last)
        self._keep(node.output[0], self._op(_UNARY[node.op_type], [given], given.shape), last=last)

    def _binary(self, node: NodeProto) -> None:
        last = any(name in self._made and self._is_last(name) for name in node.input)
        shape = self._shape(node.output[0])
        shape = tuple(shape[axis] for axis in TO_LAST) if last else shape
        both = all(map(self._is_quantized, node.input)) and node.op_type == "Add"
        if both and (fused := self._quantized_output(node)) is not None:
            name, activation, quantization = fused
            inputs = [self._get(each, last=last, quantized=True) for each in node.input]
            made = self._op("ADD", inputs, shape, quantization=quantization, fusedActivationFunction=activation)
        else:
            name, activation = self._fused_relu(node)
            inputs = [self._get(each, last=last and len(self._shape(each)) == len(shape)) for each in node.input]
            made = self._op(_BINARY[node.op_type], inputs, shape, fusedActivationFunction=activation)
        self._keep(name, made, last=last)

    def _compare(self, node: NodeProto) -> None:
        inputs = [self._get(name) for name in node.input]
        made = self._op(_COMPARED[node.op_type], inputs, self._shape(node.output[0]), dtype="bool")
        self._keep(node.output[0], made)

    def _where(self, node: NodeProto) -> None:
        inputs = [self._get(name) for name in node.input]
        self._keep(node.output[0], self._op("SELECT_V2", inputs, self._shape(node.output[0])))

    def _reduce(self, node: NodeProto) -> None:
        given = self._get(node.input[0])
        axes = attribute(node, "axes") or (self._graph.constant(node.input[1]) if len(node.input) > 1 else None)
        rank = len(given.shape)
        places = self._ints(*(int(axis) % rank for axis in (range(rank) if axes is None else axes)))
        kept = bool(attribute(node, "keepdims", 1))
        made = self._op(_REDUCED[node.op_type], [given, places], self._shape(node.output[0]), keepDims=kept)
        self._keep(node.output[0], made)

    def _reshape(self, node: NodeProto) -> None:
        quantized = self._is_quantized(node.input[0])
        given = self._get(node.input[0], quantized=quantized)
        self._keep(node.output[0], self._reshaped(given, self._shape(node.output[0])))

    def _transpose(self, node: NodeProto) -> None:
        given = self._get(node.input[0], quantized=self._is_quantized(node.input[0]))
        order = attribute(node, "perm", list(reversed(range(len(given.shape)))))
        self._keep(node.output[0], self._turned(given, order))

    def _concat(self, node: NodeProto) -> None:
        shape = self._shape(node.output[0])
        inputs = [self._get(name) for name in node.input]
        made = self._like("CONCATENATION", inputs, shape, axis=attribute(node, "axis") % len(shape))
        self._keep(node.output[0], made)

    def _split(self, node: NodeProto) -> None:
        given, axis = self._get(node.input[0]), attribute(node, "axis", 0)
        axis %= len(given.shape)
        shapes = [self._shape(name) for name in node.output]
        if len(shapes) in _EVEN_SPLITS and len(set(shapes)) == 1:
            parts = [self._into.tensor("split", shape, given.dtype) for shape in shapes]
            place = self._into.constant("axis", np.array(axis, np.int32))
            self._into.operator("SPLIT", [place, given], parts, {"numSplits": len(parts)})
        else:
            begins = np.cumsum([0, *(shape[axis] for shape in shapes)])
            parts = [self._sliced(given, axis, int(begin), shape) for begin, shape in zip(begins, shapes, strict=False)]
        for name, part in zip(node.output, parts, strict=True):
            self._keep(name, part)

    def _sliced(self, tensor: Tensor, axis: int, begin: int, shape: Sequence[int]) -> Tensor:
        begins = [begin if each == axis else 0 for each in range(len(shape))]
        return self._like("SLICE", [tensor, self._ints(*begins), self._ints(*shape)], shape)

    def _slice(self, node: NodeProto) -> None:
        """A part of one axis, or one axis in the opposite order."""
        starts, ends, axes, steps = (
            None if value is None else value.tolist()
            for value in (self._graph.constant(name) for name in (*node.input[1:], *[""] * 4)[:4])
        )
        given, shape = self._get(node.input[0]), self._shape(node.output[0])
        steps = steps or [1]
        if starts is None or ends is None or len(starts) != 1 or steps[0] not in (1, -1):
            raise self._refusal(node, "constant bounds of one axis and a step of 1 or -1")
        axis = (axes or [0])[0] % len(given.shape)
        size = given.shape[axis]
        begin = slice(starts[0], ends[0], steps[0]).indices(size)[0]
        if steps[0] == 1:
            made = self._sliced(given, axis, begin, shape)
        elif shape[axis] == size:
            made = self._like("REVERSE_V2", [given, self._ints(axis)], shape)
        else:
            raise self._refusal(node, "the whole axis where its order is reversed")
        self._keep(node.output[0], made)

    def _gather(self, node: NodeProto) -> None:
        """One place of one axis."""
        given, place = self._get(node.input[0]), self._graph.constant(node.input[1])
        if place is None or place.size != 1:
            raise self._refusal(node, "one constant place")
        axis = attribute(node, "axis", 0) % len(given.shape)
        cut = (*given.shape[:axis], 1, *given.shape[axis + 1 :])
        made = self._sliced(given, axis, int(place.reshape(())) % given.shape[axis], cut)
        self._keep(node.output[0], self._reshaped(made, self._shape(node.output[0])))

    def _softmax(self, node: NodeProto) -> None:
        given = self._get(node.input[0])
        if attribute(node, "axis", -1) % len(given.shape) != len(given.shape) - 1:
            raise self._refusal(node, "a Softmax over the last axis")
        self._keep(node.output[0], self._op("SOFTMAX", [given], given.shape, beta=1.0))

    def _matmul(self, node: NodeProto) -> None:
        first, weight = self._get(node.input[0]), self._graph.stored_constant(node.input[1])
        if weight is not None and weight.ndim == 2:
            self._connect(node, first, np.ascontiguousarray(weight.T), None)
            return
        made = self._op("BATCH_MATMUL", [first, self._get(node.input[1])], self._shape(node.output[0]))
        self._keep(node.output[0], made)

    def _gemm(self, node: NodeProto) -> None:
        weight = self._graph.stored_constant(node.input[1])
        bias = self._graph.stored_constant(node.input[2]) if len(node.input) > 2 else None
        if weight is None or attribute(node, "transA", 0) or (len(node.input) > 2 and bias is None):
            raise self._refusal(node, "constant weights and an untransposed input")
        weight = weight * np.float32(attribute(node, "alpha", 1.0))
        bias = None if bias is None else (bias * np.float32(attribute(node, "beta", 1.0))).reshape(-1)
        self._connect(node, self._get(node.input[0]), weight if attribute(node, "transB", 0) else weight.T, bias)

    def _connect(self, node: NodeProto, given: Tensor, weight: Array, bias: Array | None) -> None:
        """Weights (outputs, inputs) as a fully connected operator."""
        name, activation = self._fused_relu(node)
        inputs = [given, self._into.constant(node.input[1], weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self._into.constant("bias", np.broadcast_to(bias, len(weight)).astype(np.float32)))
        shape = self._shape(node.output[0])
        options: dict[str, Any] = {"fusedActivationFunction": activation, "keepNumDims": True}
        self._keep(name, self._op("FULLY_CONNECTED", inputs, shape, **options))

    def _normalise(self, node: NodeProto) -> None:
        """Batch normalisation of a trained network: one product and one sum a channel."""
        known = [self._graph.stored_constant(name) for name in node.input[1:5]]
        values = [value for value in known if value is not None]
        if len(values) < 4:
            raise self._refusal(node, "constant statistics")
        weight, bias, mean, variance = values
        factor = weight / np.sqrt(variance + np.float32(attribute(node, "epsilon", 1e-5)))
        last = self._is_last(node.input[0])
        given = self._get(node.input[0], last=last)
        shape = (-1,) if last else (-1, *(1 for _ in given.shape[2:]))
        by, plus = (
            self._into.constant("norm", value.astype(np.float32).reshape(shape))
            for value in (factor, bias - mean * factor)
        )
        scaled = self._op("MUL", [given, by], given.shape)
        self._keep(node.output[0], self._op("ADD", [scaled, plus], given.shape), last=last)

    def _pool(self, node: NodeProto) -> None:
        kernel, strides = attribute(node, "kernel_shape"), attribute(node, "strides", [1, 1])
        quantized = node.op_type == "MaxPool" and self._is_quantized(node.input[0])
        given = self._get(node.input[0], last=True, quantized=quantized)
        padding = self._padding(node, kernel, strides, given)
        if padding != Padding.VALID or attribute(node, "ceil_mode", 0) or attribute(node, "auto_pad"):
            raise self._refusal(node, "a pooling without padding")
        name, activation = self._fused_relu(node) if not quantized else (node.output[0], 0)
        shape = self._shape(node.output[0])
        options = {
            "padding": padding, "strideH": strides[0], "strideW": strides[1], "filterHeight": kernel[0],
            "filterWidth": kernel[1], "fusedActivationFunction": activation,
        }  # fmt: skip
        kind = "MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D"
        made = self._like(kind, [given], [shape[axis] for axis in TO_LAST], **options)
        self._keep(name, made, last=True)

    def _global_pool(self, node: NodeProto) -> None:
        given = self._get(node.input[0], last=True)
        shape = (given.shape[0], 1, 1, given.shape[3])
        self._keep(node.output[0], self._op("MEAN", [given, self._ints(1, 2)], shape, keepDims=True), last=True)

    def _padding(self, node: NodeProto, kernel: Sequence[int], strides: Sequence[int], given: Tensor) -> int | None:
        """LiteRT's padding by name; None where ONNX pads otherwise."""
        pads = attribute(node, "pads", [0] * 4)
        same = []
        for size, width, stride in zip(given.shape[1:3], kernel, strides, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + width - size, 0)
            same.append((total // 2, total - total // 2))
        if not any(pads):
            return int(Padding.VALID)
        return int(Padding.SAME) if [(pads[0], pads[2]), (pads[1], pads[3])] == same else None

    def _conv(self, node: NodeProto) -> None:
        """Convolve plainly or depthwise; between quantizers in int8."""
        weight = self._graph.stored_constant(node.input[1])
        bias = self._graph.stored_constant(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.float32)
        channels, groups = self._shape(node.input[0])[1], attribute(node, "group", 1)
        plain = groups in (1, channels) and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        if weight is None or bias is None or weight.ndim != 4 or not plain:
            raise self._refusal(node, "a 2-D convolution, plain or depthwise, with constant weights")
        bias = np.broadcast_to(bias, len(weight)).astype(np.float32)
        quantizer = self._graph.producer(node.input[1])
        whole = quantizer is not None and quantizer.op_type == "DequantizeLinear" and self._is_quantized(node.input[0])
        fused = self._quantized_output(node) if whole else None
        given = self._get(node.input[0], last=True, quantized=fused is not None)
        order = (1, 2, 3, 0) if groups > 1 else (0, 2, 3, 1)
        if fused is None or quantizer is None:
            name, activation, quantization = (*self._fused_relu(node), None)
            constants = [
                self._into.constant(node.input[1], weight.transpose(order).astype(np.float32)),
                self._into.constant("bias", bias),
            ]
        else:
            name, activation, quantization = fused
            constants = self._integers(quantizer, given, bias, order)
        strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
        padding = self._padding(node, reach, strides, given)
        if padding is None:
            given, padding = self._padded(given, attribute(node, "pads")), int(Padding.VALID)
        options = {
            "padding": padding, "strideH": strides[0], "strideW": strides[1], "dilationHFactor": dilations[0],
            "dilationWFactor": dilations[1], "fusedActivationFunction": activation,
            **({"depthMultiplier": len(weight) // channels} if groups > 1 else {}),
        }  # fmt: skip
        shape = [self._shape(node.output[0])[axis] for axis in TO_LAST]
        kind = "DEPTHWISE_CONV_2D" if groups > 1 else "CONV_2D"
        made = self._op(kind, [given, *constants], shape, quantization=quantization, **options)
        self._keep(name, made, last=True)

    def _integers(self, quantizer: NodeProto, given: Tensor, bias: Array, order: Sequence[int]) -> list[Tensor]:
        """Return weights in int8 as stored, and the bias in int32 at the product of both scales."""
        numbers = self._graph.stored_constant(quantizer.input[0])
        scale, zero = self._scales(quantizer)
        if numbers is None or numbers.dtype != np.int8 or np.any(zero) or given.quantization is None:
            raise self._refusal(quantizer, "int8 weights with zero point 0")
        scales = np.broadcast_to(scale.reshape(-1), len(numbers)).astype(np.float32)
        steps = np.float32(given.quantization.scales[0]) * scales
        whole = np.round(bias.astype(np.float64) / steps)
        if np.abs(whole).max() >= 1 << 31:
            raise self._refusal(quantizer, "a bias that fits int32 at the product of both scales")
        by_channel = Quantization(scales=tuple(scales.tolist()), axis=order.index(0))
        return [
            self._into.constant(quantizer.input[0], numbers.transpose(order), quantization=by_channel),
            self._into.constant(
                "bias", whole.astype(np.int32), quantization=Quantization(scales=tuple(steps.tolist()))
            ),
        ]

    def _padded(self, given: Tensor, pads: Sequence[int]) -> Tensor:
        around = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
        shape = [size + int(extra) for size, extra in zip(given.shape, around.sum(axis=1), strict=True)]
        return self._like("PAD", [given, self._into.constant("pads", around)], shape)


_LOWERED: Final[Mapping[str, Callable[[_Lowering, NodeProto], None]]] = {
    "AveragePool": _Lowering._pool,
    "BatchNormalization": _Lowering._normalise,
    "Cast": _Lowering._cast,
    "Concat": _Lowering._concat,
    "Conv": _Lowering._conv,
    "DequantizeLinear": _Lowering._dequantize,
    "Gather": _Lowering._gather,
    "Gemm": _Lowering._gemm,
    "GlobalAveragePool": _Lowering._global_pool,
    "MatMul": _Lowering._matmul,
    "MaxPool": _Lowering._pool,
    "QuantizeLinear": _Lowering._quantize,
    "Slice": _Lowering._slice,
    "Softmax": _Lowering._softmax,
    "Split": _Lowering._split,
    "Transpose": _Lowering._transpose,
    "Where": _Lowering._where,
    **dict.fromkeys(_RESHAPED, _Lowering._reshape),
    **dict.fromkeys(_REDUCED, _Lowering._reduce),
    **dict.fromkeys(_UNARY, _Lowering._unary),
    **dict.fromkeys(_BINARY, _Lowering._binary),
    **dict.fromkeys(_COMPARED, _Lowering._compare),
}
