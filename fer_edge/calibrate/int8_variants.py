"""The INT8 graphs of a form: encoder quantized, sequence weights stored as int8, signed where TensorRT runs it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from fer_edge.calibrate.ptq import quantize_encoder
from fer_edge.calibrate.recipe import CalibrationRecipe, Form, HalfRange
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.int8_forms import QAT_SUFFIX
from fer_edge.core.manifest import Variant
from fer_edge.core.types import Progress, Uint8
from fer_edge.graph.qdq import pool_before_quantizing, to_signed_int8
from fer_edge.graph.weight_compression import stored_form

__all__ = ["FormGraphs", "form_graphs", "learnt_forms", "make_forms"]


@dataclass(frozen=True, kw_only=True)
class FormGraphs:
    """One form's ONNX files.

    Attributes:
        form: which.
        encoder: frames to features.
        head: features to logits.
        learnt: the bundle's variant that they are, of quantization-aware training; None for post-training quantization.
    """

    form: Form
    encoder: bytes
    head: bytes
    learnt: Variant | None = None

    @property
    def by_sha256(self) -> dict[str, bytes]:
        """Both files by their hash, as a bundle takes them."""
        return {sha256_bytes(data): data for data in (self.encoder, self.head)}


def learnt_forms(bundle: Bundle, recipe: CalibrationRecipe) -> tuple[FormGraphs, ...]:
    """The forms that the bundle holds as `fer-edge export` made them of quantization-aware training, as they are.

    Raises:
        InputError: the recipe's method is ``"qat"`` and a form is missing, or the forms are learnt in part only, or
            they were learnt from another variant than the recipe's parent.
        BundleError: a graph is damaged.
    """
    here = {variant.name: variant for variant in bundle.manifest.variants}
    found = {form: here[form + QAT_SUFFIX] for form in recipe.forms if form + QAT_SUFFIX in here}
    if recipe.method == "ptq" or (recipe.method == "auto" and not found):
        return ()
    if missing := [form for form in recipe.forms if form not in found]:
        lacks = " and no ".join(repr(form + QAT_SUFFIX) for form in missing)
        raise InputError(
            f"{bundle.path} has no variant {lacks}; make them by fer-edge qat and fer-edge export, name the forms that "
            "there are by --form, or quantize after training by --set method=ptq"
        )
    for variant in found.values():
        if variant.parent != recipe.parent:
            raise InputError(
                f"parent: got {recipe.parent!r}, but {variant.name} was learnt beside {variant.parent!r}; give --set "
                f"parent={variant.parent}"
            )
    return tuple(
        FormGraphs(
            form=form,
            encoder=bundle.read_graph(variant.encoder),
            head=bundle.read_graph(variant.head),
            learnt=variant,
        )
        for form, variant in found.items()
    )


def make_forms(
    encoder: ModelProto,
    head: ModelProto,
    frames: Uint8,
    *,
    recipe: CalibrationRecipe,
    progress: Progress | None = None,
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
        made.append(form_graphs(form, quantized[overflow_fix], head, recipe=recipe))
    return tuple(made)


def form_graphs(form: Form, encoder: ModelProto, head: ModelProto, *, recipe: CalibrationRecipe) -> FormGraphs:
    """What NNCF made as one form's files: pooled before it is rounded, signed where TensorRT runs it, stored as int8.

    Args:
        form: which.
        encoder: quantized, all of it or some of its layers.
        head: float.
        recipe: what becomes of the encoder's LSTM (``ptq.lstm``).

    Raises:
        InputError: as `to_signed_int8`.
    """
    encoder = pool_before_quantizing(encoder)
    if form == "int8-trt":
        encoder = to_signed_int8(encoder)
    encoder_bytes, head_bytes = stored_form(encoder, head, form=form, float_lstm=recipe.ptq.lstm == "float")
    return FormGraphs(form=form, encoder=encoder_bytes, head=head_bytes)
