from __future__ import annotations

import pytest
from miniature import applied, miniature_encoder, miniature_frames, run_graph
from onnx import TensorProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.tensorrt_rewrites import cast_input_first


def test_the_cast_comes_first_and_nothing_else_changes() -> None:
    model = miniature_encoder()
    moved = applied(cast_input_first, model)
    Graph(moved).write()
    assert [node.op_type for node in model.graph.node[:2]] == ["Unsqueeze", "Cast"]
    assert [node.op_type for node in moved.graph.node[:2]] == ["Cast", "Unsqueeze"]
    assert len(moved.graph.node) == len(model.graph.node)
    feeds = {"frames": miniature_frames(3)}
    before, after = (run_graph(each, feeds) for each in (model, moved))
    assert all((before[name] == after[name]).all() for name in before)


def test_a_cast_that_stands_first_already_stays() -> None:
    moved = applied(cast_input_first, miniature_encoder())
    assert applied(cast_input_first, moved).SerializeToString() == moved.SerializeToString()


def test_the_shape_of_the_input_may_be_read_too() -> None:
    model = miniature_encoder()
    model.graph.node.append(helper.make_node("Shape", ["frames"], ["shape"]))
    model.graph.output.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [3]))
    outputs = run_graph(applied(cast_input_first, model), {"frames": miniature_frames(3)})
    assert outputs["shape"].tolist() == [3, 16, 16]


def test_another_reader_of_the_pixels_is_refused() -> None:
    model = miniature_encoder()
    model.graph.node.append(helper.make_node("Identity", ["frames"], ["copy"], "copy"))
    with pytest.raises(InputError, match=r"got Unsqueeze .*, Identity 'copy'"):
        applied(cast_input_first, model)


def test_another_type_is_refused() -> None:
    model = miniature_encoder()
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    cast.attribute[0].i = TensorProto.FLOAT16
    with pytest.raises(InputError, match="got a Cast to another type"):
        applied(cast_input_first, model)


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(InputError, match="got 'image', expected one of 'frames'"):
        applied(cast_input_first, miniature_encoder(), name="image")
