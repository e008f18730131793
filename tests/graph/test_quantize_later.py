"""A float convolution's maxima are taken before they are rounded, to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from miniature import applied, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.checker import check_model

from fer_edge.graph.qdq import pool_before_quantizing


def floats(name: str, shape: list[int | str]) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(*, quantized: bool = False, read_twice: bool = False) -> ModelProto:
    """`x` (N, 1, 8, 8) -> convolution -> Relu -> Q/DQ -> MaxPool -> convolution `y` (N, 4, 4, 4).

    Args:
        quantized: the first convolution reads a dequantizer.
        read_twice: what the pooling reads is an output too.
    """
    draw = np.random.default_rng(0)
    known = {
        "W1": draw.normal(0, 0.5, (8, 1, 3, 3)).astype(np.float32),
        "W2": draw.normal(0, 0.2, (4, 8, 1, 1)).astype(np.float32),
        "s": np.array(0.02, np.float32),
        "z": np.array(0, np.uint8),
        "sx": np.array(0.01, np.float32),
        "zx": np.array(128, np.uint8),
    }
    before = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
    ]
    nodes = [
        *(before if quantized else []),
        helper.make_node("Conv", ["xd" if quantized else "x", "W1"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "W2"], ["y"], "second"),
    ]
    outputs = [floats("y", ["N", 4, 4, 4]), *([floats("d", ["N", 8, 8, 8])] if read_twice else [])]
    initialisers = [numpy_helper.from_array(value, name) for name, value in known.items()]
    made = helper.make_graph(nodes, "pooled", [floats("x", ["N", 1, 8, 8])], outputs, initialisers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_result_is_the_same_to_the_bit() -> None:
    before = graph()
    after = applied(pool_before_quantizing, before)
    check_model(after, full_check=True)
    assert kinds(after) == ["Conv", "MaxPool", "Relu", "QuantizeLinear", "DequantizeLinear", "Conv"]
    assert kinds(before) == kinds(graph())
    given = {"x": np.random.default_rng(1).standard_normal((3, 1, 8, 8), dtype=np.float32)}
    np.testing.assert_array_equal(run_graph(after, given)["y"], run_graph(before, given)["y"])


@pytest.mark.parametrize("change", [{"quantized": True}, {"read_twice": True}])
def test_elsewhere_nothing_moves(change: dict[str, bool]) -> None:
    assert kinds(applied(pool_before_quantizing, graph(**change))) == kinds(graph(**change))


def test_onnx_runtime_pools_floats_then(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    model = applied(pool_before_quantizing, graph())
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath)
    made = {name: node.op_type for node in optimised.graph.node for name in node.output}
    (pool,) = (node for node in optimised.graph.node if node.op_type == "MaxPool")
    assert made[pool.input[0]] in ("Conv", "FusedConv")
