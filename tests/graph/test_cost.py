from __future__ import annotations

import hashlib

import numpy as np
import pytest
from miniature import CHANNELS, FEATURES, HIDDEN, TOKENS, applied, miniature_encoder, miniature_head
from onnx import TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.cost import graph_file, graph_macs, graph_parameters
from fer_edge.graph.graph import Graph
from fer_edge.graph.weight_compression import compress_weights

BILSTM_MACS = {width: 2 * 4 * HIDDEN * (width + HIDDEN) for width in (CHANNELS, FEATURES)}
"""One step of one sequence, by the width of its input."""


def test_parameters_are_the_weights_and_nothing_else() -> None:
    convolutions = 8 * 9 + 8 + 8 * 8 * 9 + CHANNELS * 8 * 9 + CHANNELS
    lstm = 2 * 4 * HIDDEN * (CHANNELS + HIDDEN + 2)
    assert graph_parameters(Graph(miniature_encoder())) == convolutions + lstm + CHANNELS * FEATURES + FEATURES


@pytest.mark.parametrize("storage", ["cast", "dequantize"])
def test_storing_weights_as_int8_changes_neither_parameters_nor_macs(storage: str) -> None:
    for model, sizes in ((miniature_encoder(), {"N": 2}), (miniature_head(), {"B": 1, "T": 5})):
        stored = applied(compress_weights, model, storage=storage)  # type: ignore[arg-type]
        assert graph_parameters(Graph(stored)) == graph_parameters(Graph(model))
        assert graph_macs(Graph(stored), sizes) == graph_macs(Graph(model), sizes)


@pytest.mark.parametrize("batch", [1, 3])
def test_macs_of_the_encoder(batch: int) -> None:
    convolutions = 8 * 8 * (8 * 9) + 8 * 8 * 8 * (8 * 9) + 4 * 4 * CHANNELS * (8 * 9)
    products = TOKENS * CHANNELS * FEATURES + TOKENS * FEATURES
    expected = batch * (convolutions + TOKENS * BILSTM_MACS[CHANNELS] + products)
    assert graph_macs(Graph(miniature_encoder()), {"N": batch}) == expected


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 16), (2, 5)])
def test_macs_of_the_head(batch: int, steps: int) -> None:
    expected = batch * (steps * (BILSTM_MACS[FEATURES] + FEATURES) + FEATURES * 6 + 6 * 7)
    assert graph_macs(Graph(miniature_head()), {"B": batch, "T": steps}) == expected


def test_macs_of_grouped_convolution_and_transposed_gemm() -> None:
    weights = {
        "kernel": np.zeros((6, 1, 3, 3), np.float32),
        "shape": np.array([6, -1], np.int64),
        "dense": np.zeros((5, 6), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["y"], group=6),
            helper.make_node("Reshape", ["y", "shape"], ["flat"]),
            helper.make_node("Gemm", ["flat", "dense"], ["z"], transA=1, transB=1),
        ],
        "grouped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 5, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert graph_macs(Graph(model), {}) == 6 * 3 * 2 * 9 + 6 * 6 * 5


def test_an_open_dimension_is_named() -> None:
    with pytest.raises(InputError, match=r"got \{'B': 1\}, expected .*'features' \['B', 'T', 24\]"):
        graph_macs(Graph(miniature_head()), {"B": 1})


def test_a_bundles_entry() -> None:
    data = miniature_encoder().SerializeToString()
    entry = graph_file(data, dimensions={"N": 1})
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert entry.size_bytes == len(data)
    assert (entry.opset, entry.ir_version) == (17, 8)
    assert entry.macs == graph_macs(Graph(miniature_encoder()), {"N": 1})
    assert graph_file(data).macs is None
    with pytest.raises(InputError, match="the encoder"):
        graph_file(data[:-7], name="the encoder")
