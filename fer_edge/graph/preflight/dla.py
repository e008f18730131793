"""Rules of the deep learning accelerators (DLA) of Jetson Orin; TensorRT 10.7 was the last that served them.

Source: NVIDIA's "DLA Supported Layers and Restrictions", and its developer guide on running on DLA.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from fer_edge.graph.graph import all_nodes, label
from fer_edge.graph.preflight.finding import Checked, Fault

__all__ = ["fixed_shapes", "operators", "quantizers", "recurrent"]

_LOOPS: Final = ("LSTM", "GRU", "RNN", "Loop", "Scan", "If")
_KNOWN: Final = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Equal", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "LRN", "MatMul", "Max", "MaxPool", "Min", "Mul",
        "Pow", "PRelu", "Relu", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh",
    }
)  # fmt: skip
_FREE: Final = ("Constant", "Shape", "QuantizeLinear", "DequantizeLinear")


def recurrent(checked: Checked) -> Iterator[Fault]:
    """There are no recurrent layers on the accelerator; TensorRT moves them to the GPU without a word."""
    for node in all_nodes(checked.graph.nodes):
        if node.op_type in _LOOPS:
            found = f"{node.op_type}: the accelerator has no loops, so the layer would run on the GPU"
            cure = "leave dla_core out and run on the GPU, or build the convolutions as a graph of their own"
            yield Fault(node=label(node), found=found, cure=cure)


def quantizers(checked: Checked) -> Iterator[Fault]:
    """Q/DQ graphs are not for it: its INT8 came from the calibrators that are gone."""
    first = next((node for node in checked.graph.nodes if node.op_type == "QuantizeLinear"), None)
    if first is not None:
        count = sum(node.op_type == "QuantizeLinear" for node in checked.graph.nodes)
        found = f"explicit quantization ({count} quantizers), which the accelerator does not take"
        yield Fault(node=label(first), found=found, cure="take the variant 'fp32' with precision fp16")


def fixed_shapes(checked: Checked) -> Iterator[Fault]:
    """Smallest, tuned and largest sizes must be one."""
    for name, shapes in (checked.profile or {}).items():
        if name in checked.graph.inputs and len(set(shapes)) > 1:
            found = f"a profile of {' / '.join(map(str, shapes))}"
            cure = "one size: min = opt = max in the recipe's [shapes]"
            yield Fault(node=name, found=found, cure=cure)


def operators(checked: Checked) -> Iterator[Fault]:
    """What the accelerator has no layer for runs on the GPU, with a copy there and back; one row an operator."""
    strange: dict[str, list[str]] = defaultdict(list)
    for node in all_nodes(checked.graph.nodes):
        if node.op_type not in _KNOWN and node.op_type not in (*_LOOPS, *_FREE):
            strange[node.op_type].append(label(node))
    for kind, names in sorted(strange.items()):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        found = f"{kind}{more}: no layer of the accelerator, so it would run on the GPU"
        yield Fault(
            node=names[0], found=found, cure="expect copies between the two, or stay on the GPU", severity="warning"
        )
