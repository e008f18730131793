"""Fewer nodes, the same function; and what TensorRT wants written out, written out again."""

from __future__ import annotations

import numpy as np
import pytest
from miniature import applied, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.checker import check_model

from fer_edge.graph.simplify import remove_redundant_nodes
from fer_edge.graph.tensorrt_rewrites import rewrite_for_tensorrt

STEPS, WIDTH, HIDDEN = 4, 3, 5
INNER, OUTER = [0, 2, 1, 3], [1, 0, 2]


def floats(name: str, shape: list[int | str]) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def layer(*, zeros: float = 0.0, inner: list[int] = INNER, outer: list[int] = OUTER, seen: bool = False) -> ModelProto:
    """A batch-first bidirectional layer as the exporter writes it: `x` (T, N, W) to `y` (N, T, 2·H).

    Args:
        zeros: what the initial states are filled with.
        inner: the order of axes before the reshape.
        outer: that behind it.
        seen: the tensor between the reshape and the last transposition is an output too.
    """
    draw = np.random.default_rng(0)
    weights = {
        "W": draw.normal(0, 0.6, (2, 4 * HIDDEN, WIDTH)),
        "R": draw.normal(0, 0.6, (2, 4 * HIDDEN, HIDDEN)),
        "B": draw.normal(0, 0.3, (2, 8 * HIDDEN)),
    }
    numbers = {"one": [1], "two": [2], "hidden": [HIDDEN], "flat": [0, 0, -1]}
    nothing = helper.make_tensor("value", TensorProto.FLOAT, [1], [zeros])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["batch"]),
        helper.make_node("Concat", ["two", "batch", "hidden"], ["sizes"], axis=0),
        helper.make_node("ConstantOfShape", ["sizes"], ["state"], value=nothing),
        helper.make_node(
            "LSTM", ["x", "W", "R", "B", "", "state", "state"], ["Y"], "lstm", direction="bidirectional",
            hidden_size=HIDDEN,
        ),
        helper.make_node("Transpose", ["Y"], ["by_batch"], perm=inner),
        helper.make_node("Reshape", ["by_batch", "flat"], ["both"]),
        helper.make_node("Transpose", ["both"], ["batch_first"], perm=outer),
        helper.make_node("Relu", ["batch_first"], ["y"]),
    ]  # fmt: skip
    outputs = [floats("y", ["a", "b", "c"]), *([floats("both", ["d", "e", "f"])] if seen else [])]
    known = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    known += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "layer", [floats("x", [STEPS, "N", WIDTH])], outputs, known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def feed(count: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((STEPS, count, WIDTH), dtype=np.float32)}


def same(one: ModelProto, other: ModelProto, given: dict[str, np.ndarray]) -> None:
    check_model(other, full_check=True)
    for expected, got in zip(run_graph(one, given).values(), run_graph(other, given).values(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_states_of_zeros_and_the_way_round_go() -> None:
    before = layer()
    after = applied(remove_redundant_nodes, before)
    assert kinds(after) == ["LSTM", "Transpose", "Reshape", "Relu"]
    assert kinds(before) == kinds(layer())
    assert {tensor.name for tensor in after.graph.initializer} == {"W", "R", "B", "flat"}
    for count in (1, 3):
        same(before, after, feed(count))


def test_states_of_other_numbers_stay() -> None:
    before = layer(zeros=0.5)
    after = applied(remove_redundant_nodes, before)
    assert "ConstantOfShape" in kinds(after)
    same(before, after, feed())


@pytest.mark.parametrize("change", [{"inner": [0, 1, 2, 3]}, {"outer": [0, 1, 2]}, {"seen": True}])
def test_other_orders_stay_as_they_are(change: dict[str, object]) -> None:
    before = layer(**change)  # type: ignore[arg-type]
    after = applied(remove_redundant_nodes, before)
    assert kinds(after).count("Transpose") == 2
    same(before, after, feed())


def test_states_come_back_for_tensorrt() -> None:
    slim = applied(remove_redundant_nodes, layer())
    spelled = applied(rewrite_for_tensorrt, slim)
    (lstm,) = (node for node in spelled.graph.node if node.op_type == "LSTM")
    assert lstm.input[5] == lstm.input[6] != ""
    assert "ConstantOfShape" in kinds(spelled)
    for count in (1, 3):
        same(slim, spelled, feed(count))
    assert kinds(applied(rewrite_for_tensorrt, spelled)) == kinds(spelled)


def normalised(*, scale: float = 1.0, opset: int = 17) -> ModelProto:
    """`x` (N, 1, 6, 6), each image less its mean over its deviation."""
    known = [
        numpy_helper.from_array(np.array([scale], np.float32), "scale"),
        numpy_helper.from_array(np.zeros(1, np.float32), "shift"),
    ]
    node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], "normalise", epsilon=0.065025)
    graph = helper.make_graph([node], "n", [floats("x", ["N", 1, 6, 6])], [floats("y", ["N", 1, 6, 6])], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [17, 18])
def test_instance_normalisation_is_written_in_plain_operators(opset: int) -> None:
    before = normalised(opset=opset)
    after = applied(rewrite_for_tensorrt, before)
    assert kinds(after) == ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div"]
    faces = np.random.default_rng(2).integers(0, 256, (3, 1, 6, 6)).astype(np.float32)
    same(before, after, {"x": faces})
    same(before, after, {"x": np.full((1, 1, 6, 6), 77, np.float32)})


def test_one_that_scales_is_left() -> None:
    assert kinds(applied(rewrite_for_tensorrt, normalised(scale=2.0))) == ["InstanceNormalization"]
