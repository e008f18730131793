"""Pre-flight rules for operators that TensorRT's parser knows, but not in every form.

`tests/graph/preflight/test_parser.py` holds them against the parser of TensorRT-RTX where it is installed.
"""

from __future__ import annotations

from typing import Any, Final

from onnx import NodeProto

from fer_edge.graph.graph import attribute
from fer_edge.graph.preflight.finding import Checked, Rule

__all__ = ["FORMS"]

_FLOAT_NAMES: Final = ("FLOAT", "FLOAT16", "BFLOAT16")
_REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def _computed(node: NodeProto, place: int, checked: Checked) -> bool:
    return len(node.input) > place and bool(node.input[place]) and checked.graph.constant(node.input[place]) is None


def _trains(node: NodeProto, checked: Checked) -> bool:
    if node.op_type == "BatchNormalization":
        return bool(attribute(node, "training_mode", 0))
    mode = checked.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return mode is not None and bool(mode.any())


def _form(operators: tuple[str, ...], check: Any, cure: str, **options: Any) -> Rule:
    return Rule("operator-form", operators, check, cure, **options)


FORMS: Final = (
    _form(("MaxPool",), lambda n, _: any(n.output[1:]) and "MaxPool with its Indices output", "drop the second output"),
    _form(
        ("LayerNormalization",),
        lambda n, _: any(n.output[1:]) and "LayerNormalization with its mean or deviation as an output",
        "keep the first output alone",
    ),
    _form(
        ("Squeeze", "Unsqueeze", *_REDUCTIONS),
        lambda n, c: _computed(n, 1, c) and f"{n.op_type} whose axes are computed",
        "make the axes a constant; fold the graph",
    ),
    _form(
        ("MaxPool",),
        lambda n, _: any(each != 1 for each in attribute(n, "dilations", [])) and "MaxPool with dilations",
        "pool without dilations",
    ),
    _form(
        ("LpPool",),
        lambda n, _: attribute(n, "p", 2) not in (1, 2) and f"LpPool with p {attribute(n, 'p', 2)}",
        "use p 1 or 2",
    ),
    _form(
        ("Resize",),
        lambda n, _: (
            attribute(n, "coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize"
            and "Resize with the mode tf_crop_and_resize"
        ),
        "crop with Slice, then resize with half_pixel",
    ),
    _form(
        ("Mod",),
        lambda n, c: c.type_of(n.input[0]) in _FLOAT_NAMES and not attribute(n, "fmod", 0) and "Mod of floats, fmod 0",
        "set fmod 1",
    ),
    _form(
        ("ScatterND", "ScatterElements"),
        lambda n, _: (
            attribute(n, "reduction", b"none") != b"none"
            and f"{n.op_type} with the reduction {attribute(n, 'reduction').decode()}"
        ),
        "scatter without a reduction",
    ),
    _form(
        ("BatchNormalization", "Dropout"),
        lambda n, c: _trains(n, c) and f"{n.op_type} in training mode",
        "export the network in evaluation mode (model.eval())",
    ),
    _form(
        ("TopK",),
        lambda n, c: c.flavour.version < (8, 6) and _computed(n, 1, c) and "TopK whose K is computed",
        "make K a constant",
    ),
)
"""In the order of the findings."""
