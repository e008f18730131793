from __future__ import annotations

import numpy as np
import onnxslim
import pytest
from miniature import applied, miniature_encoder, miniature_frames, miniature_head, run_graph
from onnx import ModelProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.simplify import fold_constants


def with_constant_arithmetic() -> ModelProto:
    """The encoder with a weight behind an Identity, as torch exports shared ones, and one that is a product."""
    model = miniature_encoder()
    for node in model.graph.node:
        node.input[:] = [{"inner": "inner_again", "query": "query_doubled"}.get(name, name) for name in node.input]
    model.graph.node.insert(0, helper.make_node("Identity", ["inner"], ["inner_again"]))
    model.graph.node.insert(0, helper.make_node("Add", ["query", "query"], ["query_doubled"]))
    return model


def test_constant_arithmetic_goes_and_the_outputs_stay() -> None:
    model = with_constant_arithmetic()
    folded = applied(fold_constants, model)
    Graph(folded).write()
    assert Graph(folded).inputs == Graph(model).inputs
    assert Graph(folded).outputs == Graph(model).outputs
    assert len(folded.graph.node) <= len(model.graph.node) - 2
    for count in (1, 2, 7):
        feeds = {"frames": miniature_frames(count)}
        before, after = (run_graph(each, feeds) for each in (model, folded))
        for name in before:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)


def test_batch_and_time_stay_dynamic() -> None:
    folded = applied(fold_constants, miniature_head())
    for batch, steps in ((1, 1), (2, 16), (3, 31)):
        feeds = {"features": np.ones((batch, steps, 24), np.float32), "length": np.full(batch, steps, np.int64)}
        before, after = (run_graph(each, feeds)["logits"] for each in (miniature_head(), folded))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_a_batch_that_folding_fixes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixing(model: ModelProto) -> ModelProto:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        return model

    monkeypatch.setattr(onnxslim, "slim", fixing)
    with pytest.raises(InputError, match="constant folding: got inputs and outputs"):
        applied(fold_constants, miniature_encoder())
