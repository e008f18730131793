from __future__ import annotations

import numpy as np
import onnx
import pytest
from miniature import applied, miniature_encoder, miniature_frames, miniature_head, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.graph.float16 import float32_nodes, to_float16
from fer_edge.graph.graph import Graph
from fer_edge.graph.lstm_forms import unroll_lstm
from fer_edge.graph.simplify import fix_dimensions

HALF = np.finfo(np.float16)


def precision_of(model: ModelProto) -> dict[str, int]:
    """The float type of every node's first output, by the node's name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    return {node.name: types[node.output[0]] for node in model.graph.node if node.output[0] in types}


def chain(*nodes: tuple[str, list[str], dict[str, object]], **constants: np.ndarray) -> ModelProto:
    """`x` float32 (2, 8) through nodes named after their kind to `y`."""
    made = [
        helper.make_node(kind, inputs, ["y" if at == len(nodes) - 1 else f"t{at}"], f"{kind}_{at}", **attributes)
        for at, (kind, inputs, attributes) in enumerate(nodes)
    ]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WEIGHT = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_the_network_stays_near_and_keeps_its_face(form: str) -> None:
    frames = {"frames": miniature_frames(3)}
    window = {
        "features": np.random.default_rng(0).normal(size=(2, 4, 24)).astype(np.float32),
        "length": np.array([4, 2], np.int64),
    }
    for model, feeds in (
        (miniature_encoder(), frames),
        (applied(fix_dimensions, miniature_head(), {"T": 4}), window),
    ):
        half = applied(to_float16, (applied(unroll_lstm, model) if form == "unrolled" else model))
        Graph(half).write()
        assert Graph(half).inputs == Graph(model).inputs
        assert [t.dtype for t in Graph(half).outputs.values()] == [t.dtype for t in Graph(model).outputs.values()]
        for name, value in run_graph(model, feeds).items():
            difference = np.abs(run_graph(half, feeds)[name] - value).max()
            assert difference <= 0.01 * max(1, np.abs(value).max())
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in half.graph.initializer)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_what_range_demands_stays_in_fp32(form: str) -> None:
    model = applied(
        to_float16, (applied(unroll_lstm, miniature_encoder()) if form == "unrolled" else miniature_encoder())
    )
    types = precision_of(model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    for name, kind in kinds.items():
        if kind in ("Softmax", "LSTM", "Sqrt", "ReduceMean", "Tanh", "Sigmoid") or (
            "/cell/" in name and kind != "Cast"
        ):
            assert types[name] == TensorProto.FLOAT, name
        if kind in ("Conv", "MatMul"):
            assert types[name] == TensorProto.FLOAT16, name


def test_a_constant_image_still_gives_no_nan() -> None:
    """In FP16 the normalisation's variance and its epsilon would both be zero."""
    frames = {"frames": np.full((1, 16, 16), 77, np.uint8)}
    expected = run_graph(miniature_encoder(), frames)["features"]
    got = run_graph(applied(to_float16, miniature_encoder()), frames)["features"]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, expected, atol=0.01)


@pytest.mark.parametrize("constant", [1e5, 1e-9, 1e-6])
def test_a_constant_that_fp16_cannot_hold_keeps_its_node_in_fp32(constant: float) -> None:
    model = chain(("MatMul", ["x", "w"], {}), ("Add", ["t0", "c"], {}), w=WEIGHT, c=np.float32(constant))
    assert "Add_1" in float32_nodes(Graph(model))
    assert precision_of(applied(to_float16, model))["Add_1"] == TensorProto.FLOAT
    model = chain(("MatMul", ["x", "w"], {}), ("Add", ["t0", "c"], {}), w=WEIGHT, c=np.float32(0.5))
    assert "Add_1" not in float32_nodes(Graph(model))


def test_the_scale_and_the_mask_before_a_softmax_stay_in_fp32() -> None:
    model = chain(
        ("MatMul", ["x", "w"], {}),
        ("Mul", ["t0", "c"], {}),
        ("Softmax", ["t1"], {"axis": 1}),
        ("MatMul", ["t2", "w"], {}),
        w=WEIGHT, c=np.float32(0.2),
    )  # fmt: skip
    assert float32_nodes(Graph(model)) == ("Mul_1", "Softmax_2")


def test_between_a_dequantizer_and_a_quantizer_nothing_is_cast() -> None:
    """A cast there would part what TensorRT joins into one INT8 layer."""
    zero, scale = np.int8(0), np.float32(0.05)
    model = chain(
        ("QuantizeLinear", ["x", "s", "z"], {}),
        ("DequantizeLinear", ["t0", "s", "z"], {}),
        ("DequantizeLinear", ["q", "s", "z"], {}),
        ("MatMul", ["t1", "t2"], {}),
        ("Relu", ["t3"], {}),
        ("QuantizeLinear", ["t4", "s", "z"], {}),
        ("DequantizeLinear", ["t5", "s", "z"], {}),
        ("Relu", ["t6"], {}),
        ("MatMul", ["t7", "w"], {}),
        s=scale, z=zero, q=np.ones((8, 8), np.int8), w=WEIGHT,
    )  # fmt: skip
    assert float32_nodes(Graph(model)) == ()  # a layer held to FP32 there would not be an INT8 one
    half = applied(to_float16, model)
    types = precision_of(half)
    assert [types[name] for name in ("MatMul_3", "Relu_4", "MatMul_8")] == [
        TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT16,
    ]  # fmt: skip
    inside = [node for node in half.graph.node if node.op_type == "Cast"]
    assert all(node.input[0] not in {f"t{at}" for at in range(6)} for node in inside)
    x = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_allclose(run_graph(half, {"x": x})["y"], run_graph(model, {"x": x})["y"], atol=0.05)
