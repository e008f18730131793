"""Spatial attention of faces, and the probability lost by covering a region."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.json_report import JsonReport
from fer_edge.core.types import Float32, Uint8
from fer_edge.runtime.inference import Network

__all__ = [
    "FaceExplanation",
    "FaceMaps",
    "Map",
    "cell_edges",
    "correlation",
    "entropies",
    "explain_face",
    "face_maps",
    "plain_map",
    "square_maps",
]

Map = tuple[tuple[float, ...], ...]
"""One value per region, row by row from the top."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceMaps:
    """Outputs of a network for faces, each by itself (T = 1).

    Attributes:
        probabilities: float32 (N, C).
        attention: float32 (N, G, G), the weight of each region token; sums to 1.
        occlusion_drop: float32 (N, G, G), loss of the most probable expression's probability when the region is
            covered by the face's mean grey; None where not computed.
    """

    probabilities: Float32
    attention: Float32
    occlusion_drop: Float32 | None


@dataclass(frozen=True, kw_only=True)
class FaceExplanation(JsonReport):
    """Label, probabilities and attention of one face.

    Attributes:
        label: the most probable expression, also below the threshold for ``unknown``.
        probabilities: by label, of sum 1.
        attention: weight of each region, of sum 1; a region is a cell of an even grid over the crop.
        attention_entropy: entropy of these weights over that of even ones: 0 for one region alone, 1 for all equal.
        occlusion_drop: loss of the label's probability when each region is covered; None where not computed.
        agreement: correlation of the two maps over the regions; None where there is one map, or one is constant.
    """

    label: str
    probabilities: dict[str, float]
    attention: Map
    attention_entropy: float
    occlusion_drop: Map | None
    agreement: float | None


def face_maps(network: Network, frames: Uint8, *, occlusion: bool = False) -> FaceMaps:
    """Compute the attention of every face by itself.

    Args:
        frames: uint8 (N, S, S) grey, prepared (`prepare_stills`).
        occlusion: also cover every region in turn: one more pass per region.

    Raises:
        InputError: another type or shape, no face, or a bundle whose region tokens form no square grid.
        SessionError: the engine failed.
    """
    features, attention = network.encode_with_attention(frames)
    maps = square_maps(attention)
    side = maps.shape[1]
    probabilities = _probabilities(network, features)
    drops = None
    if occlusion:
        drops = np.empty((len(frames), side, side), np.float32)
        for index, frame in enumerate(frames):
            best = int(probabilities[index].argmax())
            covered = _probabilities(network, network.encode(_covered(frame, side)))
            drops[index] = (probabilities[index, best] - covered[:, best]).reshape(side, side)
    return FaceMaps(probabilities=probabilities, attention=maps, occlusion_drop=drops)


def square_maps(attention: Float32) -> Float32:
    """Reshape weights of region tokens, float32 (N, G * G), to maps, float32 (N, G, G).

    Raises:
        InputError: the tokens form no square grid.
    """
    side = math.isqrt(attention.shape[1])
    if side * side != attention.shape[1]:
        raise InputError(f"region tokens: got {attention.shape[1]}, expected a square grid of them")
    return attention.reshape(-1, side, side)


def explain_face(
    maps: FaceMaps, index: int, labels: tuple[str, ...], *, window: Float32 | None = None
) -> FaceExplanation:
    """Describe one face of `maps` in plain numbers.

    Args:
        maps: outputs for some faces.
        index: the face's row.
        window: float32 (C,), probabilities over a window that ends at this face, to report in their place.
    """
    row = maps.probabilities[index] if window is None else window
    attention = maps.attention[index]
    drop = None if maps.occlusion_drop is None else maps.occlusion_drop[index]
    return FaceExplanation(
        label=labels[int(row.argmax())],
        probabilities={label: float(value) for label, value in zip(labels, row, strict=True)},
        attention=plain_map(attention),
        attention_entropy=float(entropies(attention.reshape(1, -1))[0]),
        occlusion_drop=None if drop is None else plain_map(drop),
        agreement=None if drop is None else correlation(attention, drop),
    )


def entropies(weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Compute the entropy of rows of weights over that of even ones: (N, K >= 2), sum 1 -> float64 (N,), 0 to 1.

    Weights of 0 add nothing to the entropy, but count among the K.
    """
    exact = np.asarray(weights, np.float64)
    parts = exact * np.log(np.where(exact > 0, exact, 1.0))
    return np.asarray(np.clip(-parts.sum(axis=1) / math.log(exact.shape[1]), 0.0, 1.0))


def correlation(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float | None:
    """Compute Pearson's correlation of two maps over all cells; None where one of them is constant."""
    a, b = (np.asarray(each, np.float64).ravel() - np.mean(each, dtype=np.float64) for each in (first, second))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return None if scale < 1e-12 else float(a @ b) / scale


def cell_edges(start: float, length: float, cells: int) -> list[int]:
    """Compute the edges of the cells of an even grid, in whole pixels: `cells` + 1 numbers."""
    return [round(start + length * place / cells) for place in range(cells + 1)]


def _covered(frame: Uint8, side: int) -> Uint8:
    """Cover each region in turn with the frame's mean grey: uint8 (side * side, S, S)."""
    edges = cell_edges(0, frame.shape[0], side)
    copies = np.repeat(frame[None], side * side, axis=0)
    for place in range(side * side):
        row, column = divmod(place, side)
        copies[place, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = round(float(frame.mean()))
    return copies


def _probabilities(network: Network, features: Float32) -> Float32:
    return network.probabilities(features[:, None], np.ones(len(features), np.int64))


def plain_map(values: NDArray[np.floating[Any]]) -> Map:
    """Convert a map (G, G) to plain numbers, rounded to a millionth."""
    return tuple(tuple(round(float(value), 6) for value in row) for row in values)
