"""INT8 graphs of a bundle: quantized after training, or taken from quantization-aware training."""

from __future__ import annotations

from dataclasses import dataclass

from fer_edge.calibrate.ptq import quantize_encoder
from fer_edge.calibrate.recipe import CalibrationRecipe, Form, HalfRange
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.int8_forms import QAT_SUFFIX
from fer_edge.core.manifest import Variant
from fer_edge.core.types import Progress, Uint8
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import pool_before_quantizing, to_signed_int8
from fer_edge.graph.weight_compression import compress_head, compress_parts

__all__ = ["Int8Graphs", "qat_graphs", "quantized_graphs"]


@dataclass(frozen=True, kw_only=True)
class Int8Graphs:
    """ONNX files of one INT8 form.

    Attributes:
        form: ``"int8"`` or ``"int8-trt"``.
        encoder: frames to features.
        head: features to logits.
        crowd: features to the logits of the head `crowd`; None where the bundle has none.
        qat: the bundle's variant that they come from, made by quantization-aware training; None for post-training
            quantization.
    """

    form: Form
    encoder: bytes
    head: bytes
    crowd: bytes | None = None
    qat: Variant | None = None

    @property
    def by_sha256(self) -> dict[str, bytes]:
        """The files by their hash, as a bundle stores them."""
        return {sha256_bytes(data): data for data in (self.encoder, self.head, self.crowd) if data is not None}


def qat_graphs(bundle: Bundle, recipe: CalibrationRecipe) -> tuple[Int8Graphs, ...]:
    """Read the graphs that `fer-edge export` made of quantization-aware training; empty for post-training quantization.

    Raises:
        InputError: a form is missing that the recipe wants, or was trained beside another variant than the parent.
        BundleError: a graph is damaged.
    """
    variants = {variant.name: variant for variant in bundle.manifest.variants}
    found = {form: variants[form + QAT_SUFFIX] for form in recipe.forms if form + QAT_SUFFIX in variants}
    if recipe.method == "ptq" or (recipe.method == "auto" and not found):
        return ()
    if missing := [form + QAT_SUFFIX for form in recipe.forms if form not in found]:
        raise InputError(
            f"{bundle.path}: got no variant {' and no '.join(map(repr, missing))}, expected one for each form; run "
            "fer-edge qat and fer-edge export, select the existing forms by --form, or give --set method=ptq"
        )
    for variant in found.values():
        if variant.parent != recipe.parent:
            raise InputError(
                f"parent: got {recipe.parent!r}, expected {variant.parent!r}, the parent of {variant.name}; give --set "
                f"parent={variant.parent}"
            )
    return tuple(
        Int8Graphs(
            form=form,
            encoder=bundle.read_graph(variant.encoder),
            head=bundle.read_graph(variant.head),
            crowd=None if variant.crowd is None else bundle.read_graph(variant.crowd.graph),
            qat=variant,
        )
        for form, variant in found.items()
    )


def quantized_graphs(
    encoder: Graph,
    head: Graph,
    frames: Uint8,
    *,
    recipe: CalibrationRecipe,
    crowd: Graph | None = None,
    progress: Progress | None = None,
) -> tuple[Int8Graphs, ...]:
    """Quantize a float encoder and its heads into every form of the recipe.

    Args:
        encoder: `frames` -> `features`, `attention`; not changed.
        head: `features`, `length` -> `logits`, `attention`; not changed.
        frames: uint8 (M, S, S), the prepared calibration sample.
        recipe: forms and settings.
        crowd: the head `crowd`, or None; not changed.
        progress: called with (what, done, total).

    Raises:
        InputError: as `quantize_encoder` and `to_signed_int8`.
    """
    quantized: dict[HalfRange, Graph] = {}
    made = []
    for form in recipe.forms:
        overflow_fix = recipe.overflow_fix.of(form)
        if overflow_fix not in quantized:

            def report(_: str, done: int, total: int, form: Form = form) -> None:
                if progress is not None:
                    progress(f"quantizing {form}", done, total)

            quantized[overflow_fix] = quantize_encoder(
                encoder, frames, recipe=recipe.ptq, overflow_fix=overflow_fix, progress=report
            )
        made.append(_finished_graphs(form, quantized[overflow_fix], head, crowd))
    return tuple(made)


def _finished_graphs(form: Form, encoder: Graph, head: Graph, crowd: Graph | None) -> Int8Graphs:
    """Finish NNCF's result for one form: pooling before rounding, signed for TensorRT, weights compressed.

    Args:
        form: which.
        encoder: with Q/DQ; not changed.
        head: float; not changed.
        crowd: the head `crowd`, float, or None; not changed.

    Raises:
        InputError: as `to_signed_int8`.
    """
    encoder, head = encoder.copy(), head.copy()
    pool_before_quantizing(encoder)
    if form == "int8-trt":
        to_signed_int8(encoder)
    compress_parts(encoder, head, form=form)
    if crowd is not None:
        crowd = crowd.copy()
        compress_head(crowd, form=form)
    return Int8Graphs(
        form=form,
        encoder=encoder.write(name=f"the {form} encoder"),
        head=head.write(name=f"the {form} head"),
        crowd=None if crowd is None else crowd.write(name=f"the {form} head crowd"),
    )
