from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from miniature import FEATURES, WINDOW, miniature_head, run_graph
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from fer_edge.core.bundle import SequenceSpec
from fer_edge.core.errors import InputError
from fer_edge.core.metrics import softmax
from fer_edge.graph.graph import Graph
from fer_edge.graph.streaming_step import STEP_STATES, step_graph
from fer_edge.runtime.feature_window import FeatureWindow

TEMPERATURE = 1.7
Array = NDArray[np.generic]


def step_of(head: ModelProto, *, window: int, temperature: float) -> ModelProto:
    return step_graph(Graph(head), window=window, temperature=temperature).to_model()


def features(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, (count, FEATURES)).astype(np.float32)


def flags(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)[:, None]


def empty_state(batch: int, *, window: int = WINDOW, fill: float = 0.0) -> dict[str, Array]:
    return {
        "window": np.full((batch, window, FEATURES), fill, np.float32),
        "length": np.zeros((batch, 1), np.int32),
    }


def in_steps(graph: ModelProto, rows: NDArray[np.float32], state: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """One sequence, fed back to itself; yields each step's outputs."""
    for index, feature in enumerate(rows):
        found = run_graph(graph, {"feature": feature[None], "start": flags(index == 0), "ready": flags(1), **state})
        state = {name: found[following] for name, following in STEP_STATES}
        yield found


def as_the_runtime_does(rows: NDArray[np.float32], *, window: int) -> Iterator[tuple[Array, int]]:
    """The runtime's own window over frames at the model's rate, and the probabilities of the head on it."""
    spec = SequenceSpec(window=window, feature_size=FEATURES)
    stream, head = FeatureWindow(spec), miniature_head()
    for index, feature in enumerate(rows):
        stream.push(feature, timestamp_s=index / spec.frame_rate)
        view = stream.view()
        logits = run_graph(head, {"features": view.features[None], "length": np.array([view.length], np.int64)})
        yield softmax(logits["logits"], temperature=TEMPERATURE)[0], view.length


@pytest.mark.parametrize("window", [1, 4, 7])
def test_forty_steps_give_what_the_runtime_gives(window: int) -> None:
    graph = step_of(miniature_head(), window=window, temperature=TEMPERATURE)
    Graph(graph).write()
    rows = features(40)
    got = list(in_steps(graph, rows, empty_state(1, window=window)))
    for found, (probabilities, length) in zip(got, as_the_runtime_does(rows, window=window), strict=True):
        np.testing.assert_allclose(found["probabilities"][0], probabilities, atol=1e-6)
        assert found["next_length"].item() == length
    assert np.ptp([found["probabilities"][0].max() for found in got]) > 0.01  # the steps do differ


def test_a_start_forgets_what_was_there() -> None:
    graph = step_of(miniature_head(), window=WINDOW, temperature=TEMPERATURE)
    rows = features(6)
    clean = list(in_steps(graph, rows, empty_state(1)))
    dirty = {"window": np.full((1, WINDOW, FEATURES), np.nan, np.float32), "length": flags(3)}
    for ours, theirs in zip(clean, in_steps(graph, rows, dirty), strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_zeros_stand_for_no_state() -> None:
    """Also where the start flag is lost: a length of 0 is an empty window."""
    graph = step_of(miniature_head(), window=WINDOW, temperature=TEMPERATURE)
    feeds = {"feature": features(1), "ready": flags(1), **empty_state(1)}
    flagged = run_graph(graph, {**feeds, "start": flags(1)})
    silent = run_graph(graph, {**feeds, "start": flags(0)})
    for name in flagged:
        np.testing.assert_array_equal(flagged[name], silent[name])
    assert (flagged["next_window"] == feeds["feature"][:, None]).all()


def test_sequences_of_one_batch_do_not_touch_each_other() -> None:
    """Three at once: one that goes on, one that starts over garbage, one without a frame."""
    graph = step_of(miniature_head(), window=WINDOW, temperature=TEMPERATURE)
    rows = features(3, seed=5)
    window = features(3 * WINDOW, seed=6).reshape(3, WINDOW, FEATURES)
    window[1] = np.nan
    state = {"window": window, "length": flags(2, 3, 4)}
    controls = {"start": flags(0, 1, 0), "ready": flags(1, 1, 0)}
    together = run_graph(graph, {"feature": rows, **controls, **state})
    for index in range(3):
        only = slice(index, index + 1)
        feeds = {name: value[only] for name, value in {"feature": rows, **controls, **state}.items()}
        alone = run_graph(graph, feeds)
        for name in alone:
            np.testing.assert_allclose(together[name][only], alone[name], atol=1e-6)
    assert together["next_length"].ravel().tolist() == [3, 1, 4]
    np.testing.assert_array_equal(together["next_window"][2], window[2])


def test_states_sort_alike_by_either_name() -> None:
    """Triton pairs them by their order (triton-inference-server/server #8586)."""
    assert sorted(range(len(STEP_STATES)), key=lambda i: STEP_STATES[i][0]) == sorted(
        range(len(STEP_STATES)), key=lambda i: STEP_STATES[i][1]
    )


@pytest.mark.parametrize(("window", "temperature"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_numbers_out_of_range_are_refused(window: int, temperature: float) -> None:
    with pytest.raises(InputError, match="expected both above 0"):
        step_of(miniature_head(), window=window, temperature=temperature)


def test_what_is_no_head_is_refused() -> None:
    head = miniature_head()
    head.opset_import[0].version = 12
    with pytest.raises(InputError, match="got opset 12, expected 13 or newer"):
        step_of(head, window=WINDOW, temperature=1.0)
    head = miniature_head()
    head.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))
    with pytest.raises(InputError, match="got features, length, extra"):
        step_of(head, window=WINDOW, temperature=1.0)
    head = miniature_head()
    head.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "C"
    with pytest.raises(InputError, match="'logits': got the shape"):
        step_of(head, window=WINDOW, temperature=1.0)
