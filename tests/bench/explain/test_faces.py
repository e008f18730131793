"""Spatial attention, and what covering a region costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import SIZE, tiny_bundle, tiny_encoder, tiny_frames

from fer_edge.bench.explain import entropies, face_maps
from fer_edge.bench.explain.faces import cell_edges, correlation, explain_face
from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import softmax
from fer_edge.runtime.inference import Network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with Network.open(tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")) as opened:
        yield opened


def test_the_maps_are_the_graphs_own_weights(network: Network) -> None:
    frames = tiny_frames(5)
    maps = face_maps(network, frames)
    _, attention = network.encode_with_attention(frames)
    assert maps.attention.shape == (5, 2, 2)
    assert np.array_equal(maps.attention.reshape(5, 4), attention)
    assert maps.occlusion_drop is None
    np.testing.assert_allclose(maps.attention.sum(axis=(1, 2)), 1, atol=1e-6)


def test_covering_is_done_by_hand_to_the_same_end(network: Network) -> None:
    frames = tiny_frames(2, seed=3)
    drop = face_maps(network, frames, occlusion=True).occlusion_drop
    assert drop is not None

    def probabilities(frame: np.ndarray) -> np.ndarray:
        logits = network.logits(network.encode(frame[None])[:, None], np.ones(1, np.int64))
        return softmax(logits, temperature=network.variant.temperature)[0]

    covered, whole = frames[1].copy(), probabilities(frames[1])
    covered[SIZE // 2 :, : SIZE // 2] = round(float(frames[1].mean()))
    best = whole.argmax()
    assert drop[1, 1, 0] == pytest.approx(whole[best] - probabilities(covered)[best], abs=1e-6)
    assert not np.allclose(drop[1], drop[1, 1, 0])


def test_a_face_in_words(network: Network) -> None:
    maps = face_maps(network, tiny_frames(2), occlusion=True)
    face = explain_face(maps, 1, EXPRESSIONS)
    assert face.label == max(face.probabilities, key=face.probabilities.__getitem__)
    assert face.agreement is not None
    assert -1 <= face.agreement <= 1
    shown = face.to_json()
    assert shown["attention"][0][1] == pytest.approx(float(maps.attention[1, 0, 1]), abs=1e-6)
    window = np.eye(7, dtype=np.float32)[2]
    assert explain_face(maps, 1, EXPRESSIONS, window=window).label == EXPRESSIONS[2]


def test_entropy_is_0_for_one_region_and_1_for_even_weights() -> None:
    rows = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropies(rows), [0, 1, 0.5], atol=1e-12)


def test_correlation_knows_constant_maps() -> None:
    first = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert correlation(first, 2 * first + 1) == pytest.approx(1)
    assert correlation(first, -first) == pytest.approx(-1)
    assert correlation(first, np.ones((2, 2))) is None


def test_cells_cover_everything_once() -> None:
    assert cell_edges(0, 48, 3) == [0, 16, 32, 48]
    edges = cell_edges(-3, 50, 3)
    assert (edges[0], edges[-1]) == (-3, 47)
    assert all(16 <= later - earlier <= 17 for earlier, later in itertools.pairwise(edges))


def test_tokens_that_are_no_square_grid(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    gaze = next(each for each in encoder.graph.initializer if each.name == "gaze")
    values = np.frombuffer(gaze.raw_data, np.float32).reshape(gaze.dims)
    gaze.raw_data, gaze.dims[1] = values[:, :3].tobytes(), 3
    encoder.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 3
    bundle = tiny_bundle(tmp_path / "odd", encoder=encoder)
    with (
        Network.open(bundle) as network,
        pytest.raises(InputError, match="got 3, expected a square grid"),
    ):
        face_maps(network, tiny_frames(1))
