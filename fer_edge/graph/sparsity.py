"""2:4 sparsity of a graph's convolutions, by TensorRT's rule.

Of the weights (K, C, R, S), C a multiple of four, every four consecutive input channels of one output channel at one
kernel position hold at most two nonzeros ("Structured Sparsity" in NVIDIA's TensorRT documentation).
"""

from __future__ import annotations

import numpy as np

from fer_edge.core.errors import GateError
from fer_edge.core.types import Array
from fer_edge.graph.graph import Graph, attribute

__all__ = ["convolution_weights", "holds_two_of_four", "require_two_of_four"]


def convolution_weights(graph: Graph) -> dict[str, Array]:
    """Weights (K, C, R, S) of the 2-D convolutions in one group, by node name, in graph order.

    Weights stored as integers behind a DequantizeLinear are dequantized; computed weights are left out.
    """
    found = {}
    for node in graph.nodes:
        if node.op_type == "Conv" and attribute(node, "group", 1) == 1:
            weights = graph.stored_constant(node.input[1])
            if weights is not None and weights.ndim == 4:
                found[node.name or node.output[0]] = weights
    return found


def holds_two_of_four(weights: Array) -> bool:
    """Whether weights (K, C, R, S) hold the pattern."""
    outputs, inputs, *kernel = weights.shape
    if inputs % 4:
        return False
    fours = np.reshape(weights, (outputs, inputs // 4, 4, *kernel))
    return bool((np.count_nonzero(fours, axis=2) <= 2).all())


def require_two_of_four(graph: Graph, *, min_channels: int, count: int, what: str) -> tuple[str, ...]:
    """Name the convolutions that hold the pattern, among those with `min_channels` input and output channels.

    Raises:
        GateError: not exactly `count` of them hold it; those that do not are named.
    """
    large = {
        name: weights
        for name, weights in convolution_weights(graph).items()
        if min(weights.shape[:2]) >= min_channels and weights.shape[1] % 4 == 0
    }
    sparse = tuple(name for name, weights in large.items() if holds_two_of_four(weights))
    dense = [name for name in large if name not in sparse]
    if len(sparse) != count or dense:
        raise GateError(
            f"{what}: got {len(sparse)} convolutions in the pattern 2:4, expected {count}; dense: "
            f"{', '.join(dense) or 'none'}; train the run again with --sparsity 2:4"
        )
    return sparse
