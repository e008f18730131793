from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from miniature import applied, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import to_signed_int8, unsigned_nodes

SCALE = 0.02
ZERO = np.uint8(0)


def quantized(zero_point: np.generic | None = ZERO) -> ModelProto:
    """Relu(x) through a quantizer "q", then a convolution with int8 weights behind a quantizer of their own."""
    random = np.random.default_rng(0)
    weights = {
        "scale": np.float32(SCALE),
        "kernel": random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "kernel_scale": np.full(4, 0.01, np.float32),
        "kernel_zero": np.zeros(4, np.int8),
    }
    pair = ["scale"]
    if zero_point is not None:
        weights["zero"] = zero_point
        pair.append("zero")
    nodes = [
        helper.make_node("Relu", ["x"], ["active"], "relu"),
        helper.make_node("QuantizeLinear", ["active", *pair], ["stored"], "quantize"),
        helper.make_node("DequantizeLinear", ["stored", *pair], ["read"], "dequantize"),
        helper.make_node("DequantizeLinear", ["kernel", "kernel_scale", "kernel_zero"], ["w"], "weights", axis=0),
        helper.make_node("Conv", ["read", "w"], ["y"], "conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [
            helper.make_tensor_value_info("read", TensorProto.FLOAT, ["N", 3, 8, 8]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    graph.value_info.append(helper.make_tensor_value_info("stored", TensorProto.UINT8, ["N", 3, 8, 8]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ramp() -> np.ndarray:
    """Values below, in and above the quantizer's range of 0 .. 5.1, float32 (2, 3, 8, 8)."""
    return np.linspace(-1, 6, 2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)


@pytest.mark.parametrize("zero_point", [ZERO, None])
def test_the_range_stays_and_the_steps_double(zero_point: np.uint8 | None) -> None:
    model = quantized(zero_point)
    assert unsigned_nodes(Graph(model)) == ("quantize", "dequantize")
    signed = applied(to_signed_int8, model)
    Graph(signed).write()
    assert unsigned_nodes(Graph(signed)) == ()
    assert applied(to_signed_int8, signed).SerializeToString() == signed.SerializeToString()
    before, after = (run_graph(each, {"x": ramp()})["read"] for each in (model, signed))
    exact = ramp().clip(0, 255 * SCALE)
    assert np.abs(before - exact).max() <= SCALE / 2 * 1.01
    assert SCALE / 2 < np.abs(after - exact).max() <= SCALE * 255 / 127 / 2 * 1.01
    assert after.max() == pytest.approx(255 * SCALE)


def test_the_convolution_behind_it_stays_near() -> None:
    before, after = (
        run_graph(each, {"x": ramp()})["y"] for each in (quantized(), applied(to_signed_int8, quantized()))
    )
    assert 0 < np.abs(after - before).max() < 0.05 * np.abs(before).max()


@pytest.mark.parametrize("zero_point", [np.uint8(128), np.int8(3)])
def test_a_zero_point_is_refused_with_the_nodes_names(zero_point: np.generic) -> None:
    model = quantized(zero_point)
    assert unsigned_nodes(Graph(model)) == ("quantize", "dequantize")
    with pytest.raises(InputError, match=r"got 2 with a zero point other than 0 \(quantize, dequantize\)"):
        applied(to_signed_int8, model)


def unsigned_weights(model: ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors["kernel"].CopyFrom(numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.uint8), "kernel"))
    tensors["kernel_zero"].CopyFrom(numpy_helper.from_array(np.zeros(4, np.uint8), "kernel_zero"))


def quantized_output(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("stored", TensorProto.UINT8, None))


def integer_operator(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"], "dynamic"))


def computed_scale(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0))
    for node in model.graph.node:
        node.input[:] = ["top" if name == "scale" else name for name in node.input]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (unsigned_weights, "got weights outside a pair"),
        (quantized_output, "got quantize outside a pair"),
        (integer_operator, r"got integer operators \(dynamic\)"),
        (computed_scale, r"computed scale or zero point \('top'\)"),
    ],
)
def test_what_cannot_be_signed_is_refused(plant: Callable[[ModelProto], None], words: str) -> None:
    model = quantized()
    plant(model)
    with pytest.raises(InputError, match=words):
        applied(to_signed_int8, model)
