"""Rules on recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from onnx import NodeProto

from fer_edge.graph.graph import all_nodes, attribute, label
from fer_edge.graph.preflight.finding import Checked, Fault

__all__ = ["activations", "attributes", "initial_states", "products", "types"]

_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_PRODUCTS: Final = ("MatMul", "Gemm", *_RECURRENT)
_STATES: Final = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_KNOWN: Final = (
    "relu", "tanh", "sigmoid", "affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu", "softsign",
    "softplus",
)  # fmt: skip


def activations(checked: Checked) -> Iterator[Fault]:
    """Both directions must use the same activation functions, and known ones."""
    for node in _recurrent(checked):
        names = [each.decode().lower() for each in attribute(node, "activations", [])]
        if unknown := [name for name in names if name not in _KNOWN]:
            found = f"the activation {unknown[0]!r}"
            yield Fault(node=label(node), found=found, cure="use sigmoid and tanh, the operator's own")
        half = len(names) // 2
        if attribute(node, "direction", b"forward") == b"bidirectional" and names[:half] != names[half:]:
            found = f"activations {', '.join(names[:half])} one way and {', '.join(names[half:])} the other"
            yield Fault(node=label(node), found=found, cure="give both directions the same activations, or split them")


def attributes(checked: Checked) -> Iterator[Fault]:
    """Layout and coupled gates are refused; a clip and sequence lengths cost layers in every step."""
    for node in _recurrent(checked):
        if attribute(node, "layout", 0):
            cure = "transpose to time first (layout 0) before the layer and back after it"
            yield Fault(node=label(node), found="layout 1 (batch first)", cure=cure)
        if attribute(node, "input_forget", 0):
            yield Fault(node=label(node), found="coupled gates (input_forget 1)", cure="train with input_forget 0")
        if attribute(node, "clip") is not None:
            found = f"a clip of {attribute(node, 'clip'):g}, which is a further layer in every step"
            yield Fault(node=label(node), found=found, cure="train without the clip", severity="warning")
        if len(node.input) > 4 and node.input[4]:
            found = "the length of each sequence as an input, which is a comparison in every step"
            cure = "give windows of one length: the runtime repeats a short window's oldest feature"
            yield Fault(node=label(node), found=found, cure=cure, severity="warning")


def initial_states(checked: Checked) -> Iterator[Fault]:
    """States that are left out leave it to the parser to derive their shape from the input's."""
    for node in _recurrent(checked):
        missing = [place for place in _STATES[node.op_type] if len(node.input) <= place or not node.input[place]]
        if missing:
            cure = "give zeros of shape (directions, batch, hidden), or take the LSTM form 'hoisted' or 'unrolled'"
            yield Fault(node=label(node), found="no explicit initial state", cure=cure, severity="warning")


def types(checked: Checked) -> Iterator[Fault]:
    """TensorRT has recurrent layers in FP32, FP16 and BF16."""
    for node in _recurrent(checked):
        kind = checked.type_name(node.input[0])
        if kind not in ("FLOAT", "FLOAT16", "BFLOAT16", "UNDEFINED"):
            found = f"{kind.lower()} values, expected float32, float16 or bfloat16"
            yield Fault(node=label(node), found=found, cure="cast the layer's input and weights to float32")


def products(checked: Checked) -> Iterator[Fault]:
    """A GPU for which the flavour builds FP16 products only: a recurrent node's own products are among them."""
    asked = [number for number in checked.compute_capabilities if number in checked.flavour.fp16_only]
    if not asked:
        return
    for node in all_nodes(checked.graph.nodes):
        if node.op_type in _PRODUCTS and checked.type_name(node.input[0]) not in ("FLOAT16", "BFLOAT16"):
            cure = "precision fp16 or int8-fp16, with the LSTM form 'unrolled'"
            found = f"a float32 {node.op_type}, which {checked.flavour.title} does not build for SM{asked[0]}"
            yield Fault(node=label(node), found=found, cure=cure)


def _recurrent(checked: Checked) -> Iterator[NodeProto]:
    return (node for node in all_nodes(checked.graph.nodes) if node.op_type in _RECURRENT)
