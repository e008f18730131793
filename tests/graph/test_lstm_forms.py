from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import applied, miniature_encoder, miniature_head, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.lstm_forms import unroll_lstm
from fer_edge.graph.simplify import fix_dimensions
from fer_edge.graph.weight_compression import compress_weights


def lstm_graph(
    *,
    direction: str = "bidirectional",
    steps: int | str = 5,
    width: int = 3,
    hidden: int = 4,
    states: str = "none",
    bias: bool = True,
    outputs: tuple[str, ...] = ("Y", "Y_h", "Y_c"),
    more: tuple[str, ...] = (),
    **attributes: object,
) -> ModelProto:
    """One LSTM: `x` float32 (T, B, I), for `states` "given" also `h` and `c` (D, B, H), to the outputs asked for."""
    random = np.random.default_rng(hidden + width)
    ways = 2 if direction == "bidirectional" else 1
    weights = {
        "W": random.normal(0, 0.6, (ways, 4 * hidden, width)),
        "R": random.normal(0, 0.6, (ways, 4 * hidden, hidden)),
        "B": random.normal(0, 0.3, (ways, 8 * hidden)),
        "zeros": np.zeros((1, 1, 1)),
    }
    inputs = ["x", "W", "R", "B" if bias else "", "", *{"none": [], "zero": ["s", "s"], "given": ["h", "c"]}[states]]
    nodes = []
    if states == "zero":
        shape = numpy_helper.from_array(np.array([ways, 2, hidden], np.int64), "shape")
        nodes.append(helper.make_node("ConstantOfShape", ["shape"], ["s"], "zero"))
    inputs += ["", ""][: max(0, 7 - len(inputs))] if more else []
    names = [name if name in outputs else "" for name in ("Y", "Y_h", "Y_c")]
    nodes.append(
        helper.make_node("LSTM", [*inputs, *more], names, "lstm", direction=direction, hidden_size=hidden, **attributes)
    )
    known = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    if states == "zero":
        known.append(shape)
    given_states = [floats(name, [ways, "B", hidden]) for name in ("h", "c")] if states == "given" else []
    shapes = {"Y": [steps, ways, "B", hidden], "Y_h": [ways, "B", hidden], "Y_c": [ways, "B", hidden]}
    graph = helper.make_graph(
        nodes,
        "lstm",
        [floats("x", [steps, "B", width]), *given_states, *[floats(name, [ways, 3 * hidden]) for name in more if name]],
        [floats(name, shapes[name]) for name in outputs],
        known,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def floats(name: str, shape: list[int | str]) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def kinds(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@settings(max_examples=12, deadline=None)
@given(
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    steps=st.integers(1, 6),
    batch=st.integers(1, 4),
    width=st.integers(1, 5),
    hidden=st.integers(1, 6),
    given_states=st.booleans(),
    bias=st.booleans(),
)
def test_every_form_computes_what_the_node_computes(
    direction: str, steps: int, batch: int, width: int, hidden: int, given_states: bool, bias: bool
) -> None:
    states = "given" if given_states else "none"
    model = lstm_graph(direction=direction, steps=steps, width=width, hidden=hidden, states=states, bias=bias)
    random = np.random.default_rng(steps * 10 + batch)
    ways = 2 if direction == "bidirectional" else 1
    feeds = {"x": random.normal(0, 1, (steps, batch, width)).astype(np.float32)}
    if given_states:
        feeds |= {name: random.normal(0, 1, (ways, batch, hidden)).astype(np.float32) for name in ("h", "c")}
    rewritten = applied(unroll_lstm, model)
    Graph(rewritten).write()
    assert "LSTM" not in kinds(rewritten)
    expected, got = run_graph(model, feeds), run_graph(rewritten, feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)


@pytest.mark.parametrize("outputs", [("Y",), ("Y_h",), ("Y_c",), ("Y", "Y_c")])
def test_outputs_that_nothing_reads_stay_away(outputs: tuple[str, ...]) -> None:
    model = lstm_graph(outputs=outputs)
    feeds = {"x": np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)}
    got = run_graph(applied(unroll_lstm, model), feeds)
    assert set(got) == set(outputs)
    for name, value in run_graph(model, feeds).items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)


def test_zero_states_are_seen_and_the_shapes_they_were_made_of_go() -> None:
    model = lstm_graph(states="zero")
    unrolled = applied(unroll_lstm, model)
    assert "ConstantOfShape" not in kinds(unrolled)
    assert sum(node.op_type == "MatMul" for node in unrolled.graph.node) == 5  # X·W, and h·R of all steps but the first
    feeds = {"x": np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)}
    np.testing.assert_allclose(run_graph(unrolled, feeds)["Y"], run_graph(model, feeds)["Y"], atol=2e-6)


@pytest.mark.parametrize("storage", ["cast", "dequantize"])
def test_weights_stored_as_int8_are_read_through(storage: str) -> None:
    model = applied(compress_weights, lstm_graph(width=40, hidden=32), storage=storage)
    assert len(kinds(model)) > 1
    rewritten = applied(unroll_lstm, model)
    assert not kinds(rewritten) & {"Cast", "DequantizeLinear"}
    feeds = {"x": np.random.default_rng(2).normal(size=(5, 3, 40)).astype(np.float32)}
    expected, got = run_graph(model, feeds), run_graph(rewritten, feeds)
    np.testing.assert_allclose(got["Y"], expected["Y"], atol=1e-5)


def test_the_network_computes_the_same() -> None:
    random = np.random.default_rng(0)
    frames = {"frames": random.integers(0, 256, (3, 16, 16)).astype(np.uint8)}
    encoder = miniature_encoder()
    got = run_graph(applied(unroll_lstm, encoder), frames)
    for name, value in run_graph(encoder, frames).items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)
    window = {"features": random.normal(size=(2, 4, 24)).astype(np.float32), "length": np.array([4, 2], np.int64)}
    head = applied(fix_dimensions, miniature_head(), {"T": 4})
    got = run_graph(applied(unroll_lstm, head), window)
    for name, value in run_graph(miniature_head(), window).items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)


def test_an_open_number_of_steps_is_not_unrolled() -> None:
    with pytest.raises(InputError, match="'lstm': got a dynamic number of steps, expected a fixed number up to 64"):
        applied(unroll_lstm, lstm_graph(steps="T"))
    with pytest.raises(InputError, match="got 65"):
        applied(unroll_lstm, lstm_graph(steps=65))


@pytest.mark.parametrize(
    ("unusual", "words"),
    [
        ({"clip": 3.0}, "got a clip"),
        ({"input_forget": 1}, "input_forget"),
        ({"layout": 1}, "got layout 1"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"] * 2}, "activations sigmoid, relu, tanh"),
        ({"more": ("P",)}, "got peepholes"),
    ],
)
def test_what_is_not_plain_is_named(unusual: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        applied(unroll_lstm, lstm_graph(**unusual))  # type: ignore[arg-type]


def test_computed_weights_are_named() -> None:
    model = lstm_graph()
    model.graph.node.insert(0, helper.make_node("Abs", ["R"], ["R2"], "abs"))
    model.graph.node[1].input[2] = "R2"
    with pytest.raises(InputError, match="got computed weights"):
        applied(unroll_lstm, model)


def test_two_nodes_keep_their_own_weights() -> None:
    model = lstm_graph()
    other = numpy_helper.from_array(np.random.default_rng(9).normal(0, 0.6, (2, 16, 3)).astype(np.float32), "W2")
    model.graph.initializer.append(other)
    twin = helper.make_node("LSTM", ["x", "W2", "R", "B"], ["Z"], "twin", direction="bidirectional", hidden_size=4)
    model.graph.node.append(twin)
    model.graph.output.append(floats("Z", [5, 2, "B", 4]))
    feeds = {"x": np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)}
    got = run_graph(applied(unroll_lstm, model), feeds)
    for name, value in run_graph(model, feeds).items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)
