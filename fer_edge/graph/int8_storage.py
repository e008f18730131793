"""How each INT8 form stores the float weights of LSTMs and matrix products, in encoder and head alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onnx import ModelProto

from fer_edge.core.int8_forms import Form
from fer_edge.graph.load import dump_graph
from fer_edge.graph.weights import WeightStorage, store_weights_int8

__all__ = ["STORAGE", "stored_form"]

STORAGE: Final[Mapping[Form, WeightStorage]] = {"int8": "cast", "int8-trt": "dequantize"}
"""How each form stores the float weights of its LSTMs and matrix products."""

# Both parts' weighted means depend on the weights before them: the LSTMs, queries and keys. In the head that ends
# before the LDA, from which on weights stay float too.
_LAST_STORED: Final = "attention"


def stored_form(encoder: ModelProto, head: ModelProto, *, form: Form, float_lstm: bool = False) -> tuple[bytes, bytes]:
    """The ONNX files of a form: sequence weights stored as its engines take them, all else as it is.

    Args:
        encoder: quantized as the form wants it; not changed.
        head: float; not changed.
        form: decides on the storage.
        float_lstm: leave the weights of the encoder's LSTMs float.
    """
    kinds = ("MatMul", "Gemm") if float_lstm else ("LSTM", "MatMul", "Gemm")
    parts = (
        store_weights_int8(encoder, storage=STORAGE[form], until=_LAST_STORED, kinds=kinds),
        store_weights_int8(head, storage=STORAGE[form], until=_LAST_STORED),
    )
    encoder_bytes, head_bytes = (
        dump_graph(part, name=f"the {form} {name}") for part, name in zip(parts, ("encoder", "head"), strict=True)
    )
    return encoder_bytes, head_bytes
