"""What `bench/lstm_cost.py` times beside the encoder: the same graph without its LSTM, and nothing else changed."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scripts import load_script

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.runtime.providers import open_session


@pytest.fixture(scope="module")
def lstm_cost() -> ModuleType:
    return load_script("bench/lstm_cost.py")


def test_the_lstm_goes_and_the_rest_stays(lstm_cost: ModuleType) -> None:
    bundle = Bundle.open("base")
    whole = Graph.read(bundle.graph_bytes("int8", "encoder"))
    rest = lstm_cost.without_lstm(whole)
    kinds = [{kind: [node.op_type for node in graph.nodes].count(kind) for kind in ("LSTM", "Conv", "Softmax")}
             for graph in (whole, rest)]  # fmt: skip
    assert kinds[0]["LSTM"] == 1
    assert kinds[1] == {**kinds[0], "LSTM": 0}
    frame = {"frames": np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)}
    with open_session(whole.write()) as full, open_session(rest.write()) as cut:
        outputs, others = full.run(frame), cut.run(frame)
    assert {name: value.shape for name, value in outputs.items()} == {name: v.shape for name, v in others.items()}
    assert not np.allclose(outputs["features"], others["features"])


def test_a_graph_without_one_is_refused(lstm_cost: ModuleType) -> None:
    rest = lstm_cost.without_lstm(Graph.read(Bundle.open("base").graph_bytes("fp32", "encoder")))
    with pytest.raises(InputError, match="no LSTM"):
        lstm_cost.without_lstm(rest)
