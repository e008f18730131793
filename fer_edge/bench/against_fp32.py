"""A variant against the FP32 variant of its bundle and against the FP32 original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fer_edge.bench.latency import LatencySummary
from fer_edge.bench.report import Comparison, OwnComparison, StatedAccuracy
from fer_edge.core.metrics import paired_report, softmax
from fer_edge.core.types import Float32, Int64

__all__ = ["Measured", "against_original", "against_own_fp32"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What a comparison needs of one variant on one provider.

    Attributes:
        latency_ms: by the names of `VariantResult.latency_ms`.
        graph_bytes: encoder + head.
        temperature: of the variant.
        logits: float32 (N, C), before temperature, on the rows that all variants of this run are evaluated on.
        labels: int64 (N,) of these rows; None where they are unlabelled.
        accuracy: measured or recorded.
    """

    latency_ms: Mapping[str, LatencySummary]
    graph_bytes: int
    temperature: float
    logits: Float32
    labels: Int64 | None
    accuracy: StatedAccuracy | None


def against_original(variant: Measured, original: Measured) -> Comparison:
    """Compare with an FP32 original on the same provider."""
    paired = None
    if variant.labels is not None:
        before, after = (softmax(each.logits, temperature=each.temperature) for each in (original, variant))
        paired = paired_report(before, after, variant.labels)
    return Comparison(
        speedup_p50=original.latency_ms["frame"].p50 / variant.latency_ms["frame"].p50,
        size_ratio=original.graph_bytes / variant.graph_bytes,
        top1_delta=_recorded_delta(variant, original) if paired is None else paired.top1_delta,
        ece_delta=None if paired is None else paired.ece_delta,
        flip_rate=None if paired is None else paired.flip_rate,
        mcnemar_p=None if paired is None else paired.mcnemar_p,
    )


def against_own_fp32(variant: Measured, fp32: Measured) -> OwnComparison:
    """Compare with the FP32 variant of the same bundle."""
    return OwnComparison(
        **vars(against_original(variant, fp32)),
        encoder_speedup_p50=fp32.latency_ms["encoder"].p50 / variant.latency_ms["encoder"].p50,
        max_abs_logit_diff=float(np.abs(variant.logits - fp32.logits).max()),
    )


def _recorded_delta(variant: Measured, original: Measured) -> float | None:
    """Subtract accuracies that were recorded on the same split; None where they were not."""
    if variant.accuracy is None or original.accuracy is None:
        return None
    ours, theirs = variant.accuracy.report, original.accuracy.report
    same = (ours.dataset, ours.split, ours.n) == (theirs.dataset, theirs.split, theirs.n)
    return ours.top1 - theirs.top1 if same else None
