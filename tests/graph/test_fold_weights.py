"""Quantizers of constants become constants; those of activations stay."""

from __future__ import annotations

import numpy as np
import pytest
from miniature import applied, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import fold_weight_quantizers


def as_torch_exports_it(*, computed_scale: bool = False) -> ModelProto:
    """A convolution between quantizers, its float weights behind a quantizer of one scale a filter."""
    random = np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "kernel": random.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32),
        "scales": np.array([0.004, 0.006, 0.01, 0.02], np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["stored"], "activation"),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["read"], "read"),
        helper.make_node("Abs", ["scales"], ["computed"], "computed"),
        helper.make_node(
            "QuantizeLinear", ["kernel", "computed" if computed_scale else "scales", "zeros"], ["q"], "weights", axis=0
        ),
        helper.make_node("DequantizeLinear", ["q", "scales", "zeros"], ["w"], "back", axis=0),
        helper.make_node("Conv", ["read", "w"], ["y"], "conv"),
    ]
    graph = helper.make_graph(
        nodes if computed_scale else [node for node in nodes if node.name != "computed"],
        "exported",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_weights_are_stored_as_int8_and_the_outputs_stay() -> None:
    given = as_torch_exports_it()
    folded = applied(fold_weight_quantizers, given)
    index = Graph(folded)
    stored = index.constant("q")
    assert stored is not None
    assert stored.dtype == np.int8
    assert stored.min() == -128 or stored.max() == 127, "the narrow scales clip some weights"
    assert [node.name for node in folded.graph.node] == ["activation", "read", "back", "conv"]
    assert "kernel" not in index.initializers
    assert len(Graph(folded).write()) < len(Graph(given).write())
    feed = {"x": np.random.default_rng(1).random((2, 3, 8, 8), np.float32) * 5}
    np.testing.assert_array_equal(run_graph(folded, feed)["y"], run_graph(given, feed)["y"])


def test_a_computed_scale_is_refused() -> None:
    with pytest.raises(InputError, match="weights: got a computed scale"):
        applied(fold_weight_quantizers, as_torch_exports_it(computed_scale=True))
