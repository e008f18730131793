from __future__ import annotations

import pytest
from miniature import miniature_encoder
from onnx import ModelProto, helper

from fer_edge.core.errors import RecipeError
from fer_edge.graph.graph import Graph
from fer_edge.graph.layers import find_nodes, layer_of

NAMES = (
    "/normalise/Div",
    "/cnn/cnn.0/cnn.0.0/Conv",
    "/cnn/cnn.1/cnn.1.3/expand/expand.0/Conv",
    "/cnn/cnn.1/cnn.1.3/Add",
    "/cnn/cnn.10/cnn.10.0/Conv",
    "/Add",
)


def graph() -> ModelProto:
    nodes = [helper.make_node("Identity", ["x"], [f"y{at}"], name) for at, name in enumerate(NAMES)]
    return helper.make_model(helper.make_graph(nodes, "named", [], []))


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/cnn/cnn.1/cnn.1.3/expand/expand.0/Conv", "cnn.1.3.expand.0"),
        ("/cnn/cnn.1/cnn.1.3/relu_1/Relu", "cnn.1.3.relu_1"),
        ("/bilstm/lstm/LSTM", "bilstm.lstm"),
        ("/Add", "/Add"),
        ("conv/inner_out", "conv/inner_out"),
    ],
)
def test_a_layer_is_its_modules_path(node: str, layer: str) -> None:
    assert layer_of(node) == layer


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("/cnn/cnn.1/cnn.1.3/Add", [3]),
        ("cnn.0.0", [1]),
        ("cnn.1", [2, 3]),
        ("cnn", [1, 2, 3, 4]),
        (r"re:cnn\.\d+\.0", [1, 4]),
        (r"re:.*/Conv", [1, 2, 4]),
    ],
)
def test_nodes_are_found_by_name_layer_module_and_pattern(entry: str, found: list[int]) -> None:
    assert find_nodes(Graph(graph()), [entry], where="key") == [NAMES[at] for at in found]


def test_what_means_no_node_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"got 'cnn\.1\.3\.expnd\.0', .*; did you mean 'cnn\.1\.3"):
        find_nodes(Graph(graph()), ["cnn.0", "cnn.1.3.expnd.0"], where="key")
    with pytest.raises(RecipeError, match=r"got 're:dense.*; layers: normalise, cnn\.0\.0"):
        find_nodes(Graph(graph()), ["re:dense.*"], where="key")
    with pytest.raises(RecipeError, match=r"got 're:\(', expected a regular expression"):
        find_nodes(Graph(graph()), ["re:("], where="key")


def test_nodes_come_in_the_graphs_order_and_once() -> None:
    model = miniature_encoder()
    names = find_nodes(Graph(model), ["conv/last_out", "re:conv/.*"], where="key")
    assert names == ["conv/stem_out", "conv/inner_out", "conv/last_out"]
