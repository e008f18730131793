"""Where a network looks on average: attention and occlusion maps over a data set's faces, by expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.accuracy import labelled_rows
from fer_edge.bench.explain import FaceMaps, entropies, face_maps
from fer_edge.bench.explain.faces import Map, correlation, plain_map
from fer_edge.bench.report import DataRead
from fer_edge.core.json_report import JsonReport
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Progress, Uint8
from fer_edge.data import Dataset
from fer_edge.runtime.inference import Network, NetworkInfo

__all__ = ["AttentionReport", "AverageFace", "ExpressionAttention", "average_attention"]

SCHEMA = 1
_BATCH = 128
RESOLUTION = (
    "one weight a region token, a cell of an even grid over the crop; finer detail does not exist. A token also sees "
    "beyond its cell, so a weight says what was pooled, not which pixels decided."
)


@dataclass(frozen=True, kw_only=True)
class AverageFace:
    """The pixelwise mean of an expression's faces, held in memory only, and what the network makes of it.

    Attributes:
        label: the most probable expression.
        probability: of it.
        attention: weight of each region.
    """

    label: str
    probability: float
    attention: Map


@dataclass(frozen=True, kw_only=True)
class ExpressionAttention:
    """The faces with one label.

    Attributes:
        n: how many.
        attention: mean weight of each region.
        attention_std: standard deviation of that weight over the faces.
        entropy: mean over the faces of their weights' entropy, over that of even ones: 0 one region, 1 all alike.
        occlusion_drop: mean of what covering a region takes from the probability of the face's most probable
            expression; None where that was not asked.
        average_face: of these faces.
    """

    n: int
    attention: Map
    attention_std: Map
    entropy: float
    occlusion_drop: Map | None
    average_face: AverageFace


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Whether the attention falls where covering hurts; the attention of another face is what chance gives.

    Attributes:
        correlation: mean over the faces of the correlation between their two maps.
        correlation_of_mismatched: the same with the attention of the next face in the data set.
        same_peak: share of faces whose most weighted region is the one whose covering costs most.
        same_peak_of_mismatched: the same with the attention of the next face.
    """

    correlation: float
    correlation_of_mismatched: float
    same_peak: float
    same_peak_of_mismatched: float


@dataclass(frozen=True, kw_only=True)
class AttentionReport(JsonReport):
    """Mean maps of a data set.

    Attributes:
        command: that made it, None from Python.
        data: what was read.
        grid: regions along each side.
        even: the weight of a region where all weights are alike.
        resolution: what a map can show, in words.
        entropy: mean and percentiles over all faces, over that of even weights.
        expressions: by label, in the bundle's order; labels that do not occur are absent.
        everything: mean weight of each region over all faces.
        faithfulness: attention against occlusion; None where that was not asked.
    """

    schema: int = SCHEMA
    command: str | None
    info: NetworkInfo
    data: DataRead
    grid: int
    even: float
    resolution: str
    entropy: Mapping[str, float]
    everything: Map
    expressions: Mapping[str, ExpressionAttention]
    faithfulness: Faithfulness | None


def average_attention(
    network: Network,
    dataset: Dataset,
    *,
    occlusion: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> AttentionReport:
    """Average the spatial attention over the split that serves to choose (FER2013's PublicTest), by true label.

    Args:
        dataset: labelled faces.
        occlusion: also cover every region of every face in turn.
        progress: called with (faces done, faces in all).

    Raises:
        InputError: the data set has no split to choose on, or labels other than the bundle's.
        SessionError: the engine failed.
    """
    labels = network.manifest.labels
    dataset.expect_expressions(labels, of=f"the bundle {network.info.bundle}")
    rows = labelled_rows(dataset, "choose")
    assert rows.labels is not None  # of a data set, not of made-up faces
    assert rows.read is not None
    parts = []
    for start in range(0, len(rows.images), _BATCH):
        frames = prepare_stills(np.asarray(rows.images[start : start + _BATCH]), network.manifest.preprocess)
        parts.append(face_maps(network, frames, occlusion=occlusion))
        if progress is not None:
            progress("explaining faces", start + len(frames), len(rows.images))
    attention = np.concatenate([part.attention for part in parts])
    lost = [part.occlusion_drop for part in parts if part.occlusion_drop is not None]
    drops = np.concatenate(lost) if lost else None
    spread = entropies(attention.reshape(len(attention), -1))
    expressions = {
        label: _expression(network, rows.images, attention, drops, spread, rows.labels == index)
        for index, label in enumerate(labels)
        if (rows.labels == index).any()
    }
    return AttentionReport(
        command=command,
        info=network.info,
        data=rows.read,
        grid=attention.shape[1],
        even=1 / attention[0].size,
        resolution=RESOLUTION,
        entropy={"mean": float(spread.mean())}
        | {f"p{rank}": float(np.percentile(spread, rank)) for rank in (5, 25, 50, 75, 95)},
        everything=plain_map(attention.mean(axis=0)),
        expressions=expressions,
        faithfulness=None if drops is None else _faithfulness(attention, drops),
    )


def _expression(
    network: Network,
    images: Uint8,
    attention: Float32,
    drops: Float32 | None,
    spread: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> ExpressionAttention:
    weights = attention[chosen]
    mean = np.round(np.asarray(images[chosen], np.float64).mean(axis=0)).astype(np.uint8)
    average: FaceMaps = face_maps(network, prepare_stills(mean[None], network.manifest.preprocess))
    best = int(average.probabilities[0].argmax())
    return ExpressionAttention(
        n=int(chosen.sum()),
        attention=plain_map(weights.mean(axis=0)),
        attention_std=plain_map(weights.std(axis=0)),
        entropy=float(spread[chosen].mean()),
        occlusion_drop=None if drops is None else plain_map(drops[chosen].mean(axis=0)),
        average_face=AverageFace(
            label=network.outputs[best],
            probability=float(average.probabilities[0, best]),
            attention=plain_map(average.attention[0]),
        ),
    )


def _faithfulness(attention: Float32, drops: Float32) -> Faithfulness:
    others = np.roll(attention, -1, axis=0)

    def agreement(weights: Float32) -> tuple[float, float]:
        found = [correlation(one, drop) for one, drop in zip(weights, drops, strict=True)]
        peaks = weights.reshape(len(weights), -1).argmax(axis=1) == drops.reshape(len(drops), -1).argmax(axis=1)
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else 0.0, float(peaks.mean())

    (own, own_peak), (other, other_peak) = agreement(attention), agreement(others)
    return Faithfulness(
        correlation=own, correlation_of_mismatched=other, same_peak=own_peak, same_peak_of_mismatched=other_peak
    )
