"""The INT8 graphs of a form: encoder quantized, sequence weights stored as int8, signed where TensorRT runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fer_edge.calibrate.ptq import quantize_encoder
from fer_edge.calibrate.recipe import CalibrationRecipe, Form, HalfRange
from fer_edge.files import sha256_bytes
from fer_edge.graph.load import dump_graph
from fer_edge.graph.signed import to_signed_int8
from fer_edge.graph.weights import WeightStorage, store_weights_int8

__all__ = ["STORAGE", "FormGraphs", "make_forms"]

STORAGE: Final[dict[Form, WeightStorage]] = {"int8": "cast", "int8-trt": "dequantize"}
"""How each form stores the float weights of its LSTMs and matrix products."""

# Both parts' weighted means depend on the weights before them: the LSTMs, queries and keys. In the head that ends
# before the LDA, from which on weights stay float too.
_LAST_STORED: Final = "attention"


@dataclass(frozen=True, kw_only=True)
class FormGraphs:
    """One form's ONNX files."""

    form: Form
    encoder: bytes
    head: bytes

    @property
    def by_sha256(self) -> dict[str, bytes]:
        """Both files by their hash, as a bundle takes them."""
        return {sha256_bytes(data): data for data in (self.encoder, self.head)}


def make_forms(
    encoder: ModelProto,
    head: ModelProto,
    frames: NDArray[np.uint8],
    *,
    recipe: CalibrationRecipe,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[FormGraphs, ...]:
    """Quantize a float encoder and head into every form of the recipe.

    Args:
        encoder: `frames` -> `features`, `attention`.
        head: `features`, `length` -> `logits`, `attention`.
        frames: uint8 (M, S, S), the calibration sample, prepared.
        recipe: forms and settings.
        progress: called with (what, done, total).

    Raises:
        InputError: as `quantize_encoder` and `to_signed_int8`.
    """
    quantized: dict[HalfRange, ModelProto] = {}
    made = []
    for form in recipe.forms:
        overflow_fix = recipe.overflow_fix.of(form)
        if overflow_fix not in quantized:

            def report(done: int, total: int, form: Form = form) -> None:
                if progress is not None:
                    progress(f"quantizing {form}", done, total)

            quantized[overflow_fix] = quantize_encoder(
                encoder, frames, recipe=recipe.ptq, overflow_fix=overflow_fix, progress=report
            )
        graph = quantized[overflow_fix]
        if form == "int8-trt":
            graph = to_signed_int8(graph)
        parts = (store_weights_int8(part, storage=STORAGE[form], until=_LAST_STORED) for part in (graph, head))
        encoder_bytes, head_bytes = (
            dump_graph(part, name=f"the {form} {name}") for part, name in zip(parts, ("encoder", "head"), strict=True)
        )
        made.append(FormGraphs(form=form, encoder=encoder_bytes, head=head_bytes))
    return tuple(made)
