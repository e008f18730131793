"""The table of pre-flight rules: rule, operators, check, cure.

Sources: docs/operators.md and docs/Changelog.md of onnx-tensorrt; for the accelerators (DLA) of Jetson Orin, NVIDIA's
"DLA Supported Layers and Restrictions", "Working with DLA" and "Strongly Typed Networks for DLA" of TensorRT 11.4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from onnx import NodeProto, TensorProto

from fer_edge.core.errors import InputError
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.graph.graph import Graph, TensorInfo, all_nodes, attribute, label
from fer_edge.graph.preflight.finding import Checked, Finding, Found, Profile, Rule
from fer_edge.graph.preflight.operator_forms import FORMS
from fer_edge.graph.preflight.operators import DLA_OPERATORS, INTEGER_OPERATORS, known_operators

__all__ = ["CHECK_TARGETS", "DLA_RULES", "RULES", "check_graph"]

_OLDEST_OPSET: Final = 9
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_THROUGH: Final = ("QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Cast", "Identity")
_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_STATES: Final = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_LOOPS: Final = (*_RECURRENT, "Loop", "Scan", "If")
_TYPED_DLA: Final = (11,)  # from here on the accelerator takes its precisions from the tensors' types
_FREE_ON_DLA: Final = (*_QDQ, "Constant", "Shape")
_ACTIVATIONS: Final = (
    "relu", "tanh", "sigmoid", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu", "softsign",
    "softplus",
)  # fmt: skip


def _opset(graph: Graph, checked: Checked) -> Found:
    newest, who = checked.flavour.max_opset, f"{checked.flavour.title} reads"
    if checked.max_opset is not None and checked.max_opset < newest:
        newest, who = checked.max_opset, "the recipe wants"
    if _OLDEST_OPSET <= graph.opset <= newest:
        return None
    return f"opset {graph.opset}; {who} {_OLDEST_OPSET} to {newest}", f"export again with opset {min(17, newest)}"


def _operator(node: NodeProto, checked: Checked) -> Found:
    if node.domain not in ("", "ai.onnx"):
        cure = "write it with ONNX's own operators; a plugin would have to be built for every target"
        return f"{node.op_type} of the domain {node.domain!r}", cure
    if node.op_type in known_operators(checked.flavour):
        return None
    cure = "write it with operators of the parser's list, or fold it into a constant"
    if node.op_type in INTEGER_OPERATORS:
        cure = "export Q/DQ pairs (fer-edge calibrate does), not integer operators"
    return f"{node.op_type}, which the parser of {checked.flavour.title} does not know", cure


def _signedness(node: NodeProto, checked: Checked) -> Found:
    """Of uint8 the parser only warns, and computes as if it were int8."""
    zero_point = len(node.input) > 2 and node.input[2]
    quantized = zero_point or (node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
    kind = checked.type_of(quantized)
    if kind == "UINT8":
        return (
            "uint8 values; TensorRT reads them as int8, so everything above 127 steps would saturate",
            "take the variant 'int8-trt' (fer-edge calibrate makes it), or rewrite the graph with fer_edge.graph.qdq",
        )
    cure = "quantize activations and weights to int8 and leave biases in float"
    return None if kind in ("INT8", "UNDEFINED") else (f"{kind.lower()} values, expected int8", cure)


def _zero_point(node: NodeProto, checked: Checked) -> Found:
    if len(node.input) < 3 or not node.input[2]:
        return None
    value = checked.graph.constant(node.input[2])
    if value is None:
        return f"a computed zero point, {node.input[2]!r}", "make the zero point a constant 0"
    largest = value.reshape(-1)[np.argmax(np.abs(value.astype(np.int32)))]
    return f"zero point {int(largest)}, expected 0" if np.any(value) else None


def _scale(node: NodeProto, checked: Checked) -> Found:
    value = checked.graph.constant(node.input[1])
    if value is None:
        return f"a computed scale, {node.input[1]!r}", "quantize statically: scales are constants"
    sound = np.isfinite(value).all() and (value > 0).all()
    return None if sound else f"a scale of {float(value.min()):g}, expected finite and above 0"


def _pair(node: NodeProto, checked: Checked) -> Found:
    readers = {reader.op_type for reader in checked.graph.consumers(node.output[0])}
    if node.output[0] in checked.graph.outputs:
        readers.add("the graph's output")
    others = ", ".join(sorted(readers - {"DequantizeLinear"}))
    return others and f"its int8 result is read by {others}, expected DequantizeLinear alone"


def _is_weight(node: NodeProto, checked: Checked) -> bool:
    """Whether the quantizer, or what comes before it, begins with a constant."""
    source = checked.graph.producer(node.input[0])
    if checked.graph.constant(node.input[0]) is not None or source is None:
        return checked.graph.constant(node.input[0]) is not None
    return source.op_type in _THROUGH and _is_weight(source, checked)


def _activation_scales(node: NodeProto, checked: Checked) -> Found:
    scale = checked.graph.constant(node.input[1])
    several = scale is not None and scale.size > 1 and not _is_weight(node, checked)
    return several and scale is not None and f"{scale.size} scales for an activation, expected one"


def _weight_axis(node: NodeProto, checked: Checked) -> Found:
    scale, stored = (checked.graph.constant(name) for name in (node.input[1], node.input[0]))
    if scale is None or scale.size == 1 or not _is_weight(node, checked):
        return None
    rank = stored.ndim if stored is not None else 0
    axis = int(attribute(node, "axis", 1))
    axis = axis + rank if axis < 0 else axis
    for reader in checked.graph.consumers(node.output[0]):
        wanted = {
            "Conv": 0, "ConvTranspose": 1, "Gemm": 0 if attribute(reader, "transB", 0) else 1, "MatMul": rank - 1,
        }.get(reader.op_type, axis)  # fmt: skip
        if len(reader.input) > 1 and reader.input[1] == node.output[0] and wanted != axis:
            found = f"one scale along axis {axis} of the weights of {reader.op_type} {reader.name!r}"
            return found, f"quantize these weights along axis {wanted}, that of the outputs"
    return None


def _profile(value: TensorInfo, checked: Checked) -> Found:
    written = ", ".join(str(size or "?") for size in value.shape)
    given = (checked.profile or {}).get(value.name)
    if given is None:
        cure = "state its smallest, tuned and largest size in the recipe's [shapes], or fix it"
        found = f"an open dimension ({written}) and no optimisation profile"
        return None if value.fixed_shape is not None else (found, cure)
    ordered = {len(each) for each in given} == {len(value.shape)} and all(
        0 < low <= tuned <= high for low, tuned, high in zip(*given, strict=True)
    )
    fits = ordered and all(
        not isinstance(size, int) or low == size == high
        for size, low, high in zip(value.shape, given[0], given[-1], strict=True)
    )
    return None if fits else f"a profile of {' / '.join(map(str, given))} for the shape ({written})"


def _uint8_reader(node: NodeProto, checked: Checked) -> Found:
    read = [name for name in node.input if name in checked.graph.inputs and checked.type_of(name) == "UINT8"]
    allowed = node.op_type == "Shape" or (node.op_type == "Cast" and attribute(node, "to") in _FLOATS)
    return (
        bool(read)
        and not allowed
        and f"the uint8 input {read[0]!r} is read by {node.op_type}, expected a Cast to float"
    )


def _uint8_inside(node: NodeProto, checked: Checked) -> Found:
    made = [name for name in node.output if checked.type_of(name) == "UINT8"]
    inside = bool(made) and node.op_type not in _QDQ and made[0] not in checked.graph.outputs
    return inside and f"{made[0]!r} is uint8 inside the graph"


def _int64(value: TensorInfo, checked: Checked) -> Found:
    narrowed = not checked.flavour.int64 and value.elem_type == TensorProto.INT64
    return narrowed and f"int64; an engine of {checked.flavour.title} takes and gives int32 there"


def _activations(node: NodeProto, _: Checked) -> Found:
    names = [each.decode().lower() for each in attribute(node, "activations", [])]
    if unknown := [name for name in names if name not in _ACTIVATIONS]:
        return f"the activation {unknown[0]!r}", "use sigmoid and tanh, the operator's own"
    half = len(names) // 2
    if attribute(node, "direction", b"forward") != b"bidirectional":
        return None
    if names[:half] != names[half:]:
        return f"activations {', '.join(names[:half])} one way and {', '.join(names[half:])} the other"
    for key in ("activation_alpha", "activation_beta"):
        values = [float(value) for value in attribute(node, key, [])]
        half = len(values) // 2
        if values[:half] != values[half:]:
            return f"{key} {values[:half]} one way and {values[half:]} the other"
    return None


def _states(node: NodeProto, _: Checked) -> Found:
    missing = [place for place in _STATES[node.op_type] if len(node.input) <= place or not node.input[place]]
    return bool(missing) and "no explicit initial state"


def _recurrent_type(node: NodeProto, checked: Checked) -> Found:
    kind = checked.type_of(node.input[0])
    known = kind in ("FLOAT", "FLOAT16", "BFLOAT16", "UNDEFINED")
    return None if known else f"{kind.lower()} values, expected float32, float16 or bfloat16"


def _fp32_product(node: NodeProto, checked: Checked) -> Found:
    """A recurrent node's own products are among the FP32 products that some GPUs get no kernel for."""
    refused = [number for number in checked.compute_capabilities if number in checked.flavour.fp16_only]
    half = checked.type_of(node.input[0]) in ("FLOAT16", "BFLOAT16")
    title = checked.flavour.title
    return bool(refused) and not half and f"a float32 {node.op_type}, which {title} does not build for SM{refused[0]}"


_CAST_FIRST: Final = "cast before anything else reads it: fer_edge.graph.tensorrt_rewrites.cast_input_first"
_FLOAT32: Final = "export the network in float32"
_PROFILE: Final = "sizes of the graph's own rank, min <= opt <= max, and equal where the graph's dimension is fixed"
_PER_TENSOR: Final = "quantize activations per tensor: activations_quantization_params(per_channel=False) in NNCF"


def _recurrent_form(check: Any, cure: str, **options: Any) -> Rule:
    return Rule("recurrent-form", _RECURRENT, check, cure, **options)


def _dla_operator(node: NodeProto, checked: Checked) -> Found:
    """One finding an operator, on its first node."""
    if node.op_type in (*DLA_OPERATORS, *_LOOPS, *_FREE_ON_DLA):
        return None
    same = [each for each in all_nodes(checked.graph.nodes) if each.op_type == node.op_type]
    more = f" and {len(same) - 1} more" if len(same) > 1 else ""
    return (
        label(same[0]) == label(node)
        and f"{node.op_type}{more}: no layer of the accelerator, so it would run on the GPU"
    )


def _dla_quantizer(*, typed: bool) -> Callable[[NodeProto, Checked], Found]:
    """Before TensorRT 11 an accelerator refuses Q/DQ; since then precisions come from the tensors' types."""
    what = "on the accelerator, not tried here" if typed else "which the accelerator does not take"

    def found(_: NodeProto, checked: Checked) -> Found:
        count = sum(node.op_type == "QuantizeLinear" for node in checked.graph.nodes)
        return (
            typed == (checked.flavour.version >= _TYPED_DLA) and f"explicit quantization ({count} quantizers), {what}"
        )

    return found


def _dla_shapes(value: TensorInfo, checked: Checked) -> Found:
    shapes = (checked.profile or {}).get(value.name, ())
    return len(set(shapes)) > 1 and f"a profile of {' / '.join(map(str, shapes))}"


RULES: Final = (
    Rule("opset", "graph", _opset),
    Rule("operator", "any", _operator),
    *FORMS,
    Rule("quantizer-signed", _QDQ, _signedness, inner=False),
    Rule(
        "quantizer-zero-point",
        _QDQ,
        _zero_point,
        'quantize with preset = "performance": symmetric activations, zero point 0',
        inner=False,
    ),
    Rule("quantizer-scale", _QDQ, _scale, "calibrate again, with images that use every channel", inner=False),
    Rule("quantizer-pair", ("QuantizeLinear",), _pair, "export Q/DQ pairs, not integer operators", inner=False),
    Rule("activation-per-tensor", _QDQ, _activation_scales, _PER_TENSOR, inner=False),
    Rule("weight-axis", ("DequantizeLinear",), _weight_axis, inner=False),
    Rule("profile", "input", _profile, _PROFILE),
    Rule("uint8", "any", _uint8_reader, _CAST_FIRST, inner=False),
    Rule("uint8", "any", _uint8_inside, "keep uint8 to inputs and outputs, float or int32 inside", inner=False),
    Rule("int64", "border", _int64, "hand it int32 (fer-edge's TensorRT session asks the engine)", "warning"),
    Rule("float64", "border", lambda value, _: value.elem_type == TensorProto.DOUBLE and "float64", _FLOAT32),
    Rule(
        "float64",
        "any",
        lambda n, c: "DOUBLE" in map(c.type_of, n.output) and "a float64 result, which the parser narrows to float32",
        _FLOAT32,
        "warning",
        inner=False,
        once=True,
    ),
    Rule(
        "recurrent-activations",
        _RECURRENT,
        _activations,
        "give both directions the same activations, or split them",
    ),
    _recurrent_form(
        lambda n, _: attribute(n, "layout", 0) and "layout 1 (batch first)",
        "transpose to time first (layout 0) before the layer and back after it",
    ),
    _recurrent_form(
        lambda n, _: attribute(n, "input_forget", 0) and "coupled gates (input_forget 1)", "train with input_forget 0"
    ),
    _recurrent_form(
        lambda n, _: (
            attribute(n, "clip") is not None
            and f"a clip of {attribute(n, 'clip'):g}, which is a further layer in every step"
        ),
        "train without the clip",
        severity="warning",
    ),
    _recurrent_form(
        lambda n, _: (
            any(n.input[4:5]) and "the length of each sequence as an input, which is a comparison in every step"
        ),
        "give windows of one length: the runtime repeats a short window's oldest feature",
        severity="warning",
    ),
    Rule(
        "recurrent-states",
        _RECURRENT,
        _states,
        "give zeros of shape (directions, batch, hidden), or take the LSTM form 'unrolled'",
        "warning",
    ),
    Rule("recurrent-type", _RECURRENT, _recurrent_type, "cast the layer's input and weights to float32"),
    Rule(
        "fp32-product",
        ("MatMul", "Gemm", *_RECURRENT),
        _fp32_product,
        "precision fp16 or int8-fp16, with the LSTM form 'unrolled'",
    ),
)
"""For every TensorRT, in the order of the findings."""

DLA_RULES: Final = (
    Rule(
        "dla-recurrent",
        _LOOPS,
        lambda n, _: f"{n.op_type}: the accelerator has no loops, so the layer would run on the GPU",
        "leave dla_core out and run on the GPU, or build the convolutions as a graph of their own",
    ),
    Rule(
        "dla-quantizer",
        ("QuantizeLinear",),
        _dla_quantizer(typed=False),
        "take the variant 'fp32' with precision fp16",
        inner=False,
        once=True,
    ),
    Rule(
        "dla-quantizer",
        ("QuantizeLinear",),
        _dla_quantizer(typed=True),
        "compare the engine's outputs, or take the variant 'fp32' with precision fp16",
        "warning",
        inner=False,
        once=True,
    ),
    Rule("dla-fixed-shapes", "input", _dla_shapes, "one size: min = opt = max in the recipe's [shapes]"),
    Rule("dla-operator", "any", _dla_operator, "expect copies between the two, or stay on the GPU", "warning"),
)
"""What a deep learning accelerator adds; TensorRT would move refused layers to the GPU without an error."""

_DLA_FLAVOUR: Final = "11.4.1"  # the newest of the table with DLA
CHECK_TARGETS: Final = (*FLAVOURS, "dla")
"""Targets of `check_graph`: the rows of the TensorRT table, and ``"dla"`` (AGX Orin's, under TensorRT 11.4.1)."""


def check_graph(
    graph: Graph,
    *,
    target: str,
    part: str = "",
    profile: Profile | None = None,
    compute_capabilities: tuple[int, ...] = (),
    on_dla: bool = False,
    max_opset: int | None = None,
) -> tuple[Finding, ...]:
    """Find everything that is wrong with a graph for a target.

    Args:
        graph: not changed.
        target: one of `CHECK_TARGETS`.
        part: the graph's name in findings.
        profile: the shapes that an engine would be built for.
        compute_capabilities: the GPUs that it would be built for, where that is done ahead of time.
        on_dla: layers are to run on a deep learning accelerator; ``target="dla"`` implies it.
        max_opset: newest opset that is wanted, where that is older than the flavour's limit.

    Raises:
        InputError: an unknown target.
    """
    if target not in CHECK_TARGETS:
        raise InputError(f"check target: got {target!r}, expected one of {', '.join(CHECK_TARGETS)}")
    checked = Checked(
        graph=graph,
        flavour=FLAVOURS[_DLA_FLAVOUR if target == "dla" else target],
        profile=profile,
        compute_capabilities=compute_capabilities,
        max_opset=max_opset,
    )
    rules = (*RULES, *(DLA_RULES if on_dla or target == "dla" else ()))
    return tuple(finding for rule in rules for finding in rule.findings(checked, target=target, part=part))
