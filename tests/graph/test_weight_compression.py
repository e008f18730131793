from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from miniature import applied, miniature_encoder, miniature_frames, miniature_head, run_graph
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.weight_compression import WeightStorage, compress_weights, restore_weights

STORAGES = ["cast", "dequantize"]


def head_feeds(batch: int = 3, steps: int = 5) -> dict[str, np.ndarray]:
    features = np.random.default_rng(0).normal(0, 1, (batch, steps, 24)).astype(np.float32)
    return {"features": features, "length": np.full(batch, steps, np.int64)}


def int8_sizes(model: ModelProto) -> list[int]:
    stored = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8)
    return sorted(int(np.prod(tensor.dims)) for tensor in stored if len(tensor.dims) > 1)


def products(*, transposed: bool) -> ModelProto:
    random = np.random.default_rng(1)
    weights = {
        "first": random.normal(0, 1, (48, 40)).astype(np.float32),
        "second": random.normal(0, 1, (30, 40) if transposed else (40, 30)).astype(np.float32),
        "bias": random.normal(0, 1, 30).astype(np.float32),
    }
    weights["first"][:, 7] = 0
    weights["first"][:, 8] *= 1000
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["h"]),
            helper.make_node("Gemm", ["h", "second", "bias"], ["y"], transB=int(transposed)),
        ],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 48])],
        [
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 40]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 30]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("storage", STORAGES)
def test_an_lstm_computes_nearly_the_same(storage: WeightStorage) -> None:
    head = miniature_head()
    stored = applied(compress_weights, head, storage=storage)
    Graph(stored).write()
    assert int8_sizes(stored) == [2 * 48 * 12, 2 * 48 * 24]
    for feeds in (head_feeds(), head_feeds(1, 1), head_feeds(2, 31)):
        got, expected = (run_graph(model, feeds)["logits"] for model in (stored, head))
        assert 0 < np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("storage", STORAGES)
def test_every_row_keeps_its_own_scale(storage: WeightStorage) -> None:
    """A column of zeros stays zero, and one a thousand times larger does not cost the others their precision."""
    x = np.eye(48, dtype=np.float32)
    for transposed in (False, True):
        model = products(transposed=transposed)
        stored = applied(compress_weights, model, storage=storage)
        assert int8_sizes(stored) == [1200, 1920]
        got, expected = (run_graph(each, {"x": x})["h"] for each in (stored, model))
        assert (got[:, 7] == 0).all()
        half_step = np.abs(expected).max(axis=0) / 127 / 2
        assert (np.abs(got - expected) <= half_step * 1.001).all()
        got, expected = (run_graph(each, {"x": x})["y"] for each in (stored, model))
        assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


def test_both_storages_hold_the_same_numbers() -> None:
    cast, dequantize = (
        run_graph(applied(compress_weights, miniature_head(), storage=each), head_feeds()) for each in STORAGES
    )
    np.testing.assert_allclose(cast["logits"], dequantize["logits"], rtol=1e-5, atol=1e-5)


def test_onnx_runtime_folds_the_cast_when_it_loads(tmp_path: Path) -> None:
    """Behind DequantizeLinear the weights would be computed anew in every run."""
    after = {}
    for storage in STORAGES:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        data = applied(compress_weights, miniature_head(), storage=storage).SerializeToString()
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        loaded = onnx.load(options.optimized_model_filepath)
        kinds = {tensor.name: tensor.data_type for tensor in loaded.graph.initializer}
        (lstm,) = (node for node in loaded.graph.node if node.op_type == "LSTM")
        after[storage] = [kinds.get(name) for name in lstm.input[1:3]]
    assert after == {"cast": [TensorProto.FLOAT] * 2, "dequantize": [None] * 2}


def test_only_what_a_tensor_is_computed_from_is_touched() -> None:
    model = products(transposed=False)
    assert int8_sizes(applied(compress_weights, model, storage="cast", until="h")) == [1920]
    with pytest.raises(InputError, match="until: got 'nothing'"):
        applied(compress_weights, model, storage="cast", until="nothing")


def test_small_weights_and_the_given_model_stay_as_they_are() -> None:
    encoder = miniature_encoder()
    before = encoder.SerializeToString()
    stored = applied(compress_weights, encoder, storage="cast")
    assert encoder.SerializeToString() == before
    names = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    assert names["shortcut"] == names["query"] == names["regions_B"] == TensorProto.FLOAT
    assert "regions_W" not in names
    again = applied(compress_weights, stored, storage="cast")
    assert again.SerializeToString() == stored.SerializeToString()
    feeds = {"frames": miniature_frames(3)}
    np.testing.assert_allclose(
        run_graph(stored, feeds)["features"], run_graph(encoder, feeds)["features"], rtol=0.05, atol=0.05
    )


def test_shared_weights_are_stored_once() -> None:
    model = miniature_head()
    (lstm,) = (node for node in model.graph.node if node.op_type == "LSTM")
    twin = onnx.NodeProto()
    twin.CopyFrom(lstm)
    twin.name, twin.output[0] = "twin", "twin_out"
    model.graph.node.append(twin)
    assert len(int8_sizes(applied(compress_weights, model, storage="dequantize"))) == 2


def test_an_unknown_storage_is_refused() -> None:
    with pytest.raises(InputError, match="got 'zip', expected 'cast'"):
        applied(compress_weights, miniature_head(), storage="zip")  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", STORAGES)
def test_restoring_gives_float_weights_of_the_same_values(storage: WeightStorage) -> None:
    stored = applied(compress_weights, miniature_head(), storage=storage)
    restored = applied(restore_weights, stored)
    Graph(restored).write()
    assert int8_sizes(restored) == []
    assert "DequantizeLinear" not in {node.op_type for node in restored.graph.node}
    for name, value in run_graph(stored, head_feeds()).items():
        np.testing.assert_allclose(run_graph(restored, head_feeds())[name], value, atol=1e-6)


def test_restoring_leaves_weights_that_int8_is_computed_with() -> None:
    zero = numpy_helper.from_array(np.int8(0), "zero")
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    weight = numpy_helper.from_array(np.ones((8, 8), np.int8), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
            helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"], "w"),
            helper.make_node("MatMul", ["d", "w"], ["y"], "product"),
        ],
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [zero, scale, weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert int8_sizes(applied(restore_weights, model)) == [64]


def test_only_the_operators_that_are_asked_for_are_stored() -> None:
    model = products(transposed=False)
    assert int8_sizes(applied(compress_weights, model, storage="cast")) == [40 * 30, 48 * 40]
    assert int8_sizes(applied(compress_weights, model, storage="cast", kinds=("LSTM", "Gemm"))) == [40 * 30]
