"""Rules on operators: which an engine's parser knows, and with what restrictions.

The lists are docs/operators.md and docs/Changelog.md of onnx-tensorrt at the versions named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from onnx import NodeProto

from fer_edge.core.tensorrt_flavours import TensorRtFlavour
from fer_edge.graph.graph import all_nodes, label
from fer_edge.graph.preflight.finding import Checked, Fault

__all__ = ["known_operators", "opset", "restrictions", "supported"]

_OLDEST_OPSET: Final = 9
_DEFAULT_DOMAINS: Final = ("", "ai.onnx")

_TENSORRT_8_5: Final = frozenset(
    {
        "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
        "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
        "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu",
        "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm",
        "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GRU",
        "HardSigmoid", "HardSwish", "Identity", "If", "ImageScaler", "InstanceNormalization", "IsNaN", "LeakyRelu",
        "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "LRN", "LSTM", "MatMul", "Max",
        "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero",
        "Not", "OneHot", "Or", "Pad", "ParametricSoftplus", "Pow", "PRelu", "QuantizeLinear", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RNN", "RoiAlign", "Round", "ScaledTanh",
        "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
        "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
        "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
    }
)  # fmt: skip
_SINCE_8_6: Final = frozenset({"GroupNormalization", "IsInf", "LayerNormalization"})
_SINCE_10: Final = frozenset({"CastLike", "DeformConv", "Gelu", "Hardmax", "Mish"})
_SINCE_10_15: Final = frozenset(
    {"Attention", "BlackmanWindow", "HammingWindow", "HannWindow", "RMSNormalization", "RotaryEmbedding", "STFT"}
)

_INTEGER: Final = "export Q/DQ pairs (fer-edge calibrate does), not integer operators"
_CURES: Final[Mapping[str, str]] = {
    "ConvInteger": _INTEGER,
    "DynamicQuantizeLinear": _INTEGER,
    "MatMulInteger": _INTEGER,
    "QLinearConv": _INTEGER,
    "QLinearMatMul": _INTEGER,
}


def opset(checked: Checked) -> Iterator[Fault]:
    """An opset that the parser does not read, or newer than the recipe wants."""
    version, newest = checked.graph.opset, checked.flavour.max_opset
    if checked.max_opset is not None and checked.max_opset < newest:
        newest = checked.max_opset
        words = f"opset {version}; the recipe wants {_OLDEST_OPSET} to {newest}"
    else:
        words = f"opset {version}; {checked.flavour.title} reads {_OLDEST_OPSET} to {newest}"
    if not _OLDEST_OPSET <= version <= newest:
        found = words
        yield Fault(node="the graph", found=found, cure=f"export again with opset {min(17, newest)}")


def known_operators(flavour: TensorRtFlavour) -> frozenset[str]:
    """ONNX operators that the flavour's parser knows."""
    known = _TENSORRT_8_5
    if flavour.package == "tensorrt_rtx" or flavour.version >= (8, 6):
        known |= _SINCE_8_6
    if flavour.package == "tensorrt_rtx" or flavour.version >= (10, 0):
        known |= _SINCE_10
    if flavour.package == "tensorrt_rtx" or flavour.version >= (10, 15):
        known |= _SINCE_10_15
    return known


def supported(checked: Checked) -> Iterator[Fault]:
    """An operator that the parser does not know, or of another domain."""
    known = known_operators(checked.flavour)
    for node in all_nodes(checked.graph.nodes):
        if node.domain not in _DEFAULT_DOMAINS:
            cure = "write it with ONNX's own operators; a plugin would have to be built for every target"
            yield Fault(node=label(node), found=f"{node.op_type} of the domain {node.domain!r}", cure=cure)
        elif node.op_type not in known:
            found = f"{node.op_type}, which the parser of {checked.flavour.title} does not know"
            cure = _CURES.get(node.op_type, "write it with operators of the parser's list, or fold it into a constant")
            yield Fault(node=label(node), found=found, cure=cure)


def restrictions(checked: Checked) -> Iterator[Fault]:
    """An operator in a form that the parser refuses."""
    for node in all_nodes(checked.graph.nodes):
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
            yield Fault(node=label(node), found="MaxPool with its Indices output", cure="drop the second output")
        if node.op_type == "LayerNormalization" and any(node.output[1:]):
            found = "LayerNormalization with its mean or deviation as an output"
            yield Fault(node=label(node), found=found, cure="keep the first output alone")
        if node.op_type in ("Squeeze", "Unsqueeze") and _computed(node, 1, checked):
            found = f"{node.op_type} whose axes are computed"
            yield Fault(node=label(node), found=found, cure="make the axes a constant; fold the graph")
        if node.op_type == "TopK" and checked.flavour.version < (8, 6) and _computed(node, 1, checked):
            yield Fault(node=label(node), found="TopK whose K is computed", cure="make K a constant")
        if node.op_type.startswith("Reduce") and _computed(node, 1, checked):
            yield Fault(
                node=label(node), found=f"{node.op_type} whose axes are computed", cure="make the axes a constant"
            )


def _computed(node: NodeProto, place: int, checked: Checked) -> bool:
    return len(node.input) > place and bool(node.input[place]) and checked.graph.constant(node.input[place]) is None
