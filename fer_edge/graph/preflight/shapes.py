"""Rules on inputs and outputs: open dimensions and their profile, and the types that cross the border."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from fer_edge.graph.graph import TensorInfo, attribute, label
from fer_edge.graph.preflight.finding import Checked, Fault

__all__ = ["doubles", "int64_border", "profiles", "uint8_border"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def profiles(checked: Checked) -> Iterator[Fault]:
    """An input with an open dimension and no profile, or with a profile that is not one."""
    for value in checked.graph.inputs.values():
        shape = [size if isinstance(size, int) else None for size in value.shape]
        given = (checked.profile or {}).get(value.name)
        if given is None:
            if None in shape:
                found = f"an open dimension ({_written(value)}) and no optimisation profile"
                cure = "state its smallest, tuned and largest size in the recipe's [shapes], or fix it"
                yield Fault(node=value.name, found=found, cure=cure)
            continue
        ranks = {len(each) for each in given} == {len(shape)}
        ordered = ranks and all(0 < low <= tuned <= high for low, tuned, high in zip(*given, strict=True))
        fits = ordered and all(
            size is None or low == size == high for size, low, high in zip(shape, given[0], given[-1], strict=True)
        )
        if not fits:
            found = f"a profile of {' / '.join(map(str, given))} for the shape ({_written(value)})"
            cure = "sizes of the graph's own rank, min <= opt <= max, and equal where the graph's dimension is fixed"
            yield Fault(node=value.name, found=found, cure=cure)


def uint8_border(checked: Checked) -> Iterator[Fault]:
    """uint8 may only cross the border, and be turned to float there."""
    inputs = checked.graph.inputs
    for name in (name for name in inputs if checked.types.get(name) == TensorProto.UINT8):
        for reader in checked.graph.consumers(name):
            if reader.op_type not in ("Cast", "Shape") or (
                reader.op_type == "Cast" and attribute(reader, "to") not in _FLOATS
            ):
                found = f"the uint8 input {name!r} is read by {reader.op_type}, expected a Cast to float"
                cure = "cast before anything else reads it: fer_edge.graph.tensorrt_rewrites.cast_input_first"
                yield Fault(node=label(reader), found=found, cure=cure)
    quantized = {"QuantizeLinear", "DequantizeLinear"}
    for node in checked.graph.nodes:
        made = [name for name in node.output if checked.types.get(name) == TensorProto.UINT8]
        if made and node.op_type not in quantized and made[0] not in checked.graph.outputs:
            found = f"{made[0]!r} is uint8 inside the graph"
            yield Fault(node=label(node), found=found, cure="keep uint8 to inputs and outputs, float or int32 inside")


def int64_border(checked: Checked) -> Iterator[Fault]:
    """Before TensorRT 9 an engine's int64 inputs and outputs were int32."""
    if checked.flavour.int64:
        return
    for value in (*checked.graph.inputs.values(), *checked.graph.outputs.values()):
        if value.elem_type == TensorProto.INT64:
            found = f"int64; an engine of {checked.flavour.title} takes and gives int32 there"
            cure = "hand it int32 (fer-edge's TensorRT session asks the engine)"
            yield Fault(node=value.name, found=found, cure=cure, severity="warning")


def doubles(checked: Checked) -> Iterator[Fault]:
    """float64 is narrowed to float32 where it can be, and refused where not."""
    for value in (*checked.graph.inputs.values(), *checked.graph.outputs.values()):
        if value.elem_type == TensorProto.DOUBLE:
            yield Fault(node=value.name, found="float64", cure="export the network in float32")
    for node in checked.graph.nodes:
        if any(checked.types.get(name) == TensorProto.DOUBLE for name in node.output):
            found = "a float64 result, which the parser narrows to float32"
            yield Fault(node=label(node), found=found, cure="export the network in float32", severity="warning")
            return


def _written(value: TensorInfo) -> str:
    return ", ".join(str(size or "?") for size in value.shape)
