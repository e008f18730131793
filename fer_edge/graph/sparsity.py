"""2:4 sparsity of an ONNX graph's convolutions, by the rule that TensorRT reads weights by.

Of the weights (K, C, R, S), C a multiple of four, every four consecutive input channels of one output channel at one
place of the kernel hold at most two that are not zero ("Structured Sparsity" in NVIDIA's TensorRT documentation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fer_edge.core.errors import GateError
from fer_edge.graph.graph import GraphIndex, attribute, constant_value

__all__ = ["ConvolutionWeights", "convolution_weights", "holds_two_of_four", "require_two_of_four"]


@dataclass(frozen=True, kw_only=True)
class ConvolutionWeights:
    """One convolution whose weights are constants.

    Attributes:
        name: the node's.
        weights: (K, C, R, S); what a DequantizeLinear makes of them where they are stored as integers.
    """

    name: str
    weights: NDArray[np.generic]


def convolution_weights(model: ModelProto) -> tuple[ConvolutionWeights, ...]:
    """The 2-D convolutions in one group with constant weights, float or behind a DequantizeLinear, in graph order."""
    index, found = GraphIndex(model), []
    for node in model.graph.node:
        if node.op_type != "Conv" or attribute(node, "group", 1) != 1:
            continue
        weights = constant_value(index, node.input[1])
        if weights is not None and weights.ndim == 4:
            found.append(ConvolutionWeights(name=node.name or node.output[0], weights=weights))
    return tuple(found)


def holds_two_of_four(weights: NDArray[np.generic]) -> bool:
    """Whether weights (K, C, R, S) hold the pattern."""
    outputs, inputs, *kernel = weights.shape
    if inputs % 4:
        return False
    fours = np.reshape(weights, (outputs, inputs // 4, 4, *kernel))
    return bool((np.count_nonzero(fours, axis=2) <= 2).all())


def require_two_of_four(model: ModelProto, *, min_channels: int, count: int, what: str) -> tuple[str, ...]:
    """The names of the convolutions that hold the pattern, among those with `min_channels` input and output channels.

    Raises:
        GateError: not exactly `count` of them do; those that do not are named.
    """
    large = [
        each
        for each in convolution_weights(model)
        if min(each.weights.shape[:2]) >= min_channels and each.weights.shape[1] % 4 == 0
    ]
    sparse = tuple(each.name for each in large if holds_two_of_four(each.weights))
    dense = [each.name for each in large if each.name not in sparse]
    if len(sparse) != count or dense:
        raise GateError(
            f"{what} is to hold {count} convolutions in the pattern 2:4, and {len(sparse)} do; dense: "
            f"{', '.join(dense) or 'none'}; train the run again with --sparsity 2:4"
        )
    return sparse
