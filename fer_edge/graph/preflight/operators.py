"""ONNX operators that the parser of each TensorRT knows, and those that an accelerator (DLA) has a layer for."""

from __future__ import annotations

from typing import Final

from fer_edge.core.tensorrt_flavours import TensorRtFlavour

__all__ = ["DLA_OPERATORS", "INTEGER_OPERATORS", "known_operators"]

INTEGER_OPERATORS: Final = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")
DLA_OPERATORS: Final = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Equal", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "LRN", "MatMul", "Max", "MaxPool", "Min", "Mul",
        "Pow", "PRelu", "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh",
    }
)  # fmt: skip
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


def known_operators(flavour: TensorRtFlavour) -> frozenset[str]:
    """ONNX operators that the flavour's parser knows."""
    rtx, known = flavour.package == "tensorrt_rtx", _TENSORRT_8_5
    for version, added in (((8, 6), _SINCE_8_6), ((10, 0), _SINCE_10), ((10, 15), _SINCE_10_15)):
        if rtx or flavour.version >= version:
            known |= added
    return known
