"""The reference CNN: the yardstick that turns a machine's milliseconds into a ratio, `x`.

48x48x1 -> four times [3x3 convolution, padding 1, no bias; batch normalisation; ReLU] with 64, 128, 256, 256 channels,
2x2 max pooling after the first three -> global average pooling -> linear to 7. FP32; batch normalisation is left for
the engine to fold. The weights are seeded, and the bytes are the same on every machine.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np

from fer_edge.bench.model_writer import Node, TensorShape, write_model
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Float32

__all__ = ["REFERENCE_CHANNELS", "REFERENCE_SIZE", "reference_graph", "reference_input"]

REFERENCE_CHANNELS: Final = (64, 128, 256, 256)
REFERENCE_SIZE: Final = 48
_SEED: Final = 2013


@functools.cache
def reference_graph(*, seed: int = _SEED) -> bytes:
    """ONNX bytes (opset 17, IR 8): ``faces`` float32 (N, 1, 48, 48) -> ``logits`` float32 (N, 7)."""
    # RandomState's stream is frozen, and uniform draws are exact: the same bytes with every numpy.
    generator = np.random.RandomState(seed)
    nodes: list[Node] = []
    weights: dict[str, Float32] = {}
    tensor, width = "faces", 1
    for layer, channels in enumerate(REFERENCE_CHANNELS, start=1):
        weights[f"conv{layer}.weight"] = _he_uniform(generator, (channels, width, 3, 3))
        for name, low, high in (("scale", 0.5, 1.5), ("bias", -0.1, 0.1), ("mean", -0.1, 0.1), ("variance", 0.5, 1.5)):
            weights[f"norm{layer}.{name}"] = generator.uniform(low, high, channels).astype(np.float32)
        statistics = [f"norm{layer}.{name}" for name in ("scale", "bias", "mean", "variance")]
        nodes += [
            Node(
                operator="Conv",
                inputs=[tensor, f"conv{layer}.weight"],
                output=f"conv{layer}",
                attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]},
            ),
            Node(operator="BatchNormalization", inputs=[f"conv{layer}", *statistics], output=f"norm{layer}"),
            Node(operator="Relu", inputs=[f"norm{layer}"], output=f"relu{layer}"),
        ]
        tensor, width = f"relu{layer}", channels
        if layer < len(REFERENCE_CHANNELS):
            pooling = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(Node(operator="MaxPool", inputs=[tensor], output=f"pool{layer}", attributes=pooling))
            tensor = f"pool{layer}"
    weights["linear.weight"] = _he_uniform(generator, (len(EXPRESSIONS), width))
    weights["linear.bias"] = generator.uniform(-0.1, 0.1, len(EXPRESSIONS)).astype(np.float32)
    nodes += [
        Node(operator="GlobalAveragePool", inputs=[tensor], output="pooled"),
        Node(operator="Flatten", inputs=["pooled"], output="flat"),
        Node(
            operator="Gemm",
            inputs=["flat", "linear.weight", "linear.bias"],
            output="logits",
            attributes={"transB": 1},
        ),
    ]
    return write_model(
        "reference-cnn",
        nodes=nodes,
        weights=weights,
        graph_input=TensorShape(name="faces", shape=["N", 1, REFERENCE_SIZE, REFERENCE_SIZE]),
        graph_output=TensorShape(name="logits", shape=["N", len(EXPRESSIONS)]),
    )


def reference_input(*, batch: int = 1) -> Float32:
    """Seeded input for the reference CNN, float32 (batch, 1, 48, 48) in [-1, 1)."""
    generator = np.random.RandomState(_SEED)
    return generator.uniform(-1, 1, (batch, 1, REFERENCE_SIZE, REFERENCE_SIZE)).astype(np.float32)


def _he_uniform(generator: np.random.RandomState, shape: tuple[int, ...]) -> Float32:
    """Uniform with He's variance (He et al. 2015, arXiv 1502.01852): activations keep their scale, so no denormals."""
    bound = math.sqrt(6.0 / math.prod(shape[1:]))
    return generator.uniform(-bound, bound, shape).astype(np.float32)
