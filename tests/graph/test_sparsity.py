"""The pattern 2:4 in a graph's convolutions, as TensorRT reads it: along the input channels, by kernel place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import GateError
from fer_edge.graph.graph import Graph
from fer_edge.graph.sparsity import convolution_weights, holds_two_of_four, require_two_of_four


def sparse_weights(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """(K, C, R, S) with two of every four along C, others at each place of the kernel."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=shape).astype(np.float32)
    outputs, inputs, *kernel = shape
    fours = weights.reshape(outputs, inputs // 4, 4, *kernel)
    order = np.argsort(random.random(fours.shape), axis=2)
    return np.where(order < 2, fours, 0).reshape(shape).astype(np.float32)


def graph(weights: NDArray[np.float32], *, stored: bool = False) -> ModelProto:
    """One convolution of constant weights, stored as int8 with a scale an output where asked."""
    nodes, tensors = [], [numpy_helper.from_array(weights, "w")]
    if stored:
        scale = np.abs(weights).max(axis=(1, 2, 3)) / 127 + 1e-9
        tensors = [
            numpy_helper.from_array(np.round(weights / scale[:, None, None, None]).astype(np.int8), "q"),
            numpy_helper.from_array(scale.astype(np.float32), "scale"),
            numpy_helper.from_array(np.zeros(len(scale), np.int8), "zero"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0))
    nodes.append(helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[1], 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weights.shape[0], 8, 8])]
    made = helper.make_graph(nodes, "sparse", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_pattern_runs_along_the_input_channels() -> None:
    weights = sparse_weights(8, 16, 3, 3)
    assert holds_two_of_four(weights)
    assert not holds_two_of_four(weights.transpose(1, 0, 2, 3) + weights.mean())
    along_outputs = sparse_weights(16, 8, 3, 3).transpose(1, 0, 2, 3)
    assert not holds_two_of_four(along_outputs)


def test_one_weight_too_many_is_seen() -> None:
    weights = sparse_weights(8, 16, 3, 3)
    place = tuple(np.argwhere(weights == 0)[100])
    weights[place] = 1e-6
    assert not holds_two_of_four(weights)


def test_input_channels_that_are_no_multiple_of_four_hold_no_pattern() -> None:
    assert not holds_two_of_four(np.zeros((8, 6, 3, 3), np.float32))


@pytest.mark.parametrize("stored", [False, True])
def test_weights_are_found_where_a_graph_keeps_them(stored: bool) -> None:
    weights = sparse_weights(32, 32, 3, 3)
    model = graph(weights, stored=stored)
    found = convolution_weights(Graph(model))
    assert list(found) == ["conv"]
    assert np.allclose(found["conv"], weights, atol=0.02)
    assert require_two_of_four(Graph(model), min_channels=32, count=1, what="the graph") == ("conv",)


def test_dense_and_missing_convolutions_are_named() -> None:
    dense = graph(np.ones((32, 32, 3, 3), np.float32))
    with pytest.raises(GateError, match="dense: conv"):
        require_two_of_four(Graph(dense), min_channels=32, count=1, what="the graph")
    small = graph(sparse_weights(8, 8, 3, 3))
    with pytest.raises(GateError, match="got 0 convolutions"):
        require_two_of_four(Graph(small), min_channels=32, count=1, what="the graph")
