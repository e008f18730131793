from __future__ import annotations

import numpy as np
import pytest
from miniature import miniature_encoder, miniature_frames, miniature_head, run_graph
from onnx import ModelProto, TensorProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.clip_graph import fuse_clip_graph
from fer_edge.graph.cost import graph_macs
from fer_edge.graph.graph import Graph


def fused(encoder: ModelProto, head: ModelProto) -> ModelProto:
    return fuse_clip_graph(Graph(encoder), Graph(head)).to_model()


def in_two_steps(frames: np.ndarray, length: np.ndarray) -> np.ndarray:
    batch, steps = frames.shape[:2]
    features = run_graph(miniature_encoder(), {"frames": frames.reshape(-1, 16, 16)})["features"]
    return run_graph(miniature_head(), {"features": features.reshape(batch, steps, -1), "length": length})["logits"]


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 6), (3, 2)])
def test_one_graph_computes_what_two_do(batch: int, steps: int) -> None:
    clip = fused(miniature_encoder(), miniature_head())
    Graph(clip).write()
    frames = miniature_frames(batch * steps).reshape(batch, steps, 16, 16)
    length = np.arange(batch, dtype=np.int64) % steps + 1
    got = run_graph(clip, {"frames": frames, "length": length})
    assert list(got) == ["logits"]
    np.testing.assert_allclose(got["logits"], in_two_steps(frames, length), rtol=1e-5, atol=1e-5)


def test_it_costs_what_its_parts_cost() -> None:
    clip = fused(miniature_encoder(), miniature_head())
    parts = 10 * graph_macs(Graph(miniature_encoder()), {"N": 1}) + graph_macs(
        Graph(miniature_head()), {"B": 2, "T": 5}
    )
    assert graph_macs(Graph(clip), {"B": 2, "T": 5}) == parts
    assert Graph(clip).inputs["frames"].shape == ("B", "T", 16, 16)


def test_nothing_but_casts_reads_the_pixels() -> None:
    """TensorRT refuses even a Reshape of uint8."""
    encoder = miniature_encoder()
    encoder.graph.node.append(helper.make_node("Shape", ["frames"], ["unused"]))
    clip = fused(encoder, miniature_head())
    assert {node.op_type for node in Graph(clip).consumers("frames")} == {"Cast", "Shape"}
    assert "encoder/frames" not in {name for node in clip.graph.node for name in node.input}
    Graph(clip).write()


def renamed(model: ModelProto, old: str, new: str) -> ModelProto:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    return model


def test_parts_that_do_not_fit_are_refused() -> None:
    head = miniature_head()
    head.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 32
    with pytest.raises(InputError, match=r"got 24 \(encoder\) and 32 \(head\)"):
        fused(miniature_encoder(), head)
    head = miniature_head()
    head.opset_import[0].version = 16
    with pytest.raises(InputError, match=r"opset: got 17 \(encoder\) and 16"):
        fused(miniature_encoder(), head)
    with pytest.raises(InputError, match="the encoder: got 'code', 'attention', expected 'features'"):
        fused(renamed(miniature_encoder(), "features", "code"), miniature_head())
    with pytest.raises(InputError, match=r"the head: got .*, expected 'length'"):
        fused(miniature_encoder(), renamed(miniature_head(), "length", "count"))


def test_an_open_frame_size_is_refused() -> None:
    encoder = miniature_encoder()
    encoder.graph.input[0].CopyFrom(helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", "S", "S"]))
    with pytest.raises(InputError, match="expected fixed frame"):
        fused(encoder, miniature_head())
