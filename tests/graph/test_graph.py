from __future__ import annotations

import onnx
import pytest
from miniature import miniature_encoder, miniature_frames, run_graph
from onnx import TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph


def damaged(model: onnx.ModelProto, weight: str, value: float) -> bytes:
    for tensor in model.graph.initializer:
        if tensor.name == weight:
            array = numpy_helper.to_array(tensor).copy()
            array.flat[3] = value
            tensor.CopyFrom(numpy_helper.from_array(array, weight))
    return model.SerializeToString()


def test_what_is_dumped_is_loaded_again() -> None:
    model = miniature_encoder()
    data = Graph(model).write()
    again = Graph.read(data)
    assert again.write() == data
    assert again.opset == 17
    feeds = {"frames": miniature_frames(2)}
    assert (run_graph(again.to_model(), feeds)["features"] == run_graph(model, feeds)["features"]).all()


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(kept: int) -> None:
    with pytest.raises(InputError, match="the encoder cannot be used"):
        Graph.read(Graph(miniature_encoder()).write()[:kept], name="the encoder")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(64), b"not a graph at all", b"{}"])
def test_a_foreign_file_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="the graph"):
        Graph.read(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(InputError, match="'inner' holds NaN or infinity"):
        Graph.read(damaged(miniature_encoder(), "inner", value))


def test_weights_in_another_file_are_refused() -> None:
    model = miniature_encoder()
    tensor = model.graph.initializer[3]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    with pytest.raises(InputError, match="in another file"):
        Graph.read(model.SerializeToString())


def test_an_invalid_graph_is_refused_with_the_checkers_words() -> None:
    model = miniature_encoder()
    model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["lost"]))
    with pytest.raises(InputError, match="nowhere"):
        Graph.read(model.SerializeToString())


def test_shapes_that_do_not_fit_are_refused() -> None:
    model = miniature_encoder()
    shortcut = next(tensor for tensor in model.graph.initializer if tensor.name == "shortcut")
    shortcut.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shortcut)[1:], "shortcut"))
    with pytest.raises(InputError, match="not a valid ONNX graph"):
        Graph.read(model.SerializeToString())


@pytest.mark.parametrize(("opset", "ir"), [(18, 8), (17, 9)])
def test_what_jetpack_6_cannot_read_is_not_dumped(opset: int, ir: int) -> None:
    model = miniature_encoder()
    model.opset_import[0].version, model.ir_version = opset, ir
    with pytest.raises(InputError, match=f"opset {opset} and IR {ir}, expected at most opset 17 and IR 8"):
        Graph(model).write()
