"""Rules on QuantizeLinear and DequantizeLinear: TensorRT quantizes signed, symmetric, one scale for an activation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from onnx import NodeProto

from fer_edge.core.types import Array
from fer_edge.graph.graph import attribute, label
from fer_edge.graph.preflight.finding import Checked, Fault

__all__ = ["activation_scales", "pairs", "scales", "signedness", "weight_axes", "zero_points"]

_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_THROUGH: Final = ("DequantizeLinear", "Reshape", "Transpose", "Cast", "Identity")
_SIGNED: Final = (
    "take the variant 'int8-trt' (fer-edge calibrate makes it), or rewrite the graph with fer_edge.graph.qdq"
)


def signedness(checked: Checked) -> Iterator[Fault]:
    """A quantizer of another type than int8. Of uint8 the parser only warns, and computes as if it were int8."""
    for node in _quantizers(checked):
        kind = _stored_type(node, checked)
        if kind == "UINT8":
            found = "uint8 values; TensorRT reads them as int8, so everything above 127 steps would saturate"
            yield Fault(node=label(node), found=found, cure=_SIGNED)
        elif kind not in ("INT8", "UNDEFINED"):
            cure = "quantize activations and weights to int8 and leave biases in float"
            yield Fault(node=label(node), found=f"{kind.lower()} values, expected int8", cure=cure)


def zero_points(checked: Checked) -> Iterator[Fault]:
    """A zero point other than 0, or one that is computed."""
    for node in _quantizers(checked):
        if len(node.input) < 3 or not node.input[2]:
            continue
        value = checked.graph.constant(node.input[2])
        if value is None:
            cure = "make the zero point a constant 0"
            yield Fault(node=label(node), found=f"a computed zero point, {node.input[2]!r}", cure=cure)
        elif np.any(value):
            cure = 'quantize with preset = "performance": symmetric activations, zero point 0'
            found = f"zero point {int(value.reshape(-1)[np.argmax(np.abs(value.astype(np.int32)))])}, expected 0"
            yield Fault(node=label(node), found=found, cure=cure)


def scales(checked: Checked) -> Iterator[Fault]:
    """A scale that is computed, zero, negative or not finite."""
    for node in _quantizers(checked):
        value = checked.graph.constant(node.input[1])
        if value is None:
            found = f"a computed scale, {node.input[1]!r}"
            yield Fault(node=label(node), found=found, cure="quantize statically: scales are constants")
        elif not (np.isfinite(value).all() and (value > 0).all()):
            found = f"a scale of {float(value.min()):g}, expected finite and above 0"
            yield Fault(node=label(node), found=found, cure="calibrate again, with images that use every channel")


def activation_scales(checked: Checked) -> Iterator[Fault]:
    """An activation with one scale a channel."""
    for node in _quantizers(checked):
        scale = checked.graph.constant(node.input[1])
        if scale is not None and scale.size > 1 and not _stores_weights(node, checked):
            found = f"{scale.size} scales for an activation, expected one"
            cure = "quantize activations per tensor: activations_quantization_params(per_channel=False) in NNCF"
            yield Fault(node=label(node), found=found, cure=cure)


def weight_axes(checked: Checked) -> Iterator[Fault]:
    """Weights with one scale along another axis than the outputs of the operator that reads them."""
    for node in _quantizers(checked):
        scale = checked.graph.constant(node.input[1])
        if node.op_type != "DequantizeLinear" or scale is None or scale.size == 1 or not _stores_weights(node, checked):
            continue
        stored = checked.graph.constant(node.input[0])
        rank = stored.ndim if stored is not None else 0
        axis = int(attribute(node, "axis", 1))
        axis = axis + rank if axis < 0 else axis
        for reader in checked.graph.consumers(node.output[0]):
            wanted = _output_axis(reader, node.output[0], rank)
            if wanted is not None and wanted != axis:
                found = f"one scale along axis {axis} of the weights of {reader.op_type} {reader.name!r}"
                cure = f"quantize these weights along axis {wanted}, that of the outputs"
                yield Fault(node=label(node), found=found, cure=cure)


def pairs(checked: Checked) -> Iterator[Fault]:
    """A quantizer whose result something else than a dequantizer reads."""
    for node in _quantizers(checked):
        if node.op_type != "QuantizeLinear":
            continue
        readers = {reader.op_type for reader in checked.graph.consumers(node.output[0])}
        if node.output[0] in checked.graph.outputs:
            readers.add("the graph's output")
        if strange := sorted(readers - {"DequantizeLinear"}):
            found = f"its int8 result is read by {', '.join(strange)}, expected DequantizeLinear alone"
            yield Fault(node=label(node), found=found, cure="export Q/DQ pairs, not integer operators")


def _quantizers(checked: Checked) -> Iterator[NodeProto]:
    return (node for node in checked.graph.nodes if node.op_type in _QDQ)


def _stored_type(node: NodeProto, checked: Checked) -> str:
    """The type of the quantized side."""
    if len(node.input) > 2 and node.input[2]:
        return checked.type_name(node.input[2])
    if node.op_type == "QuantizeLinear":
        return checked.type_name(node.output[0])
    return checked.type_name(node.input[0])


def _stores_weights(node: NodeProto, checked: Checked) -> bool:
    """The quantizer, or what stands before it, begins with a constant."""
    value: Array | None = checked.graph.constant(node.input[0])
    source = checked.graph.producer(node.input[0])
    if value is not None or source is None:
        return value is not None
    return source.op_type in ("QuantizeLinear", *_THROUGH) and _stores_weights(source, checked)


def _output_axis(reader: NodeProto, tensor: str, rank: int) -> int | None:
    if len(reader.input) < 2 or reader.input[1] != tensor:
        return None
    if reader.op_type == "Conv":
        return 0
    if reader.op_type == "ConvTranspose":
        return 1
    if reader.op_type == "Gemm":
        return 0 if attribute(reader, "transB", 0) else 1
    return rank - 1 if reader.op_type == "MatMul" else None
