from __future__ import annotations

import numpy as np
import pytest
from miniature import miniature_head, run_graph

from fer_edge.core.errors import InputError
from fer_edge.graph.cost import describe_graph
from fer_edge.graph.graph import dump_graph
from fer_edge.graph.shapes import fix_dimensions, open_dimensions
from fer_edge.graph.simplify import fold_constants


def test_a_fixed_dimension_goes_through_the_whole_graph_and_folding_drops_what_computed_it() -> None:
    head = miniature_head()
    fixed = fix_dimensions(head, {"B": 2, "T": 4})
    dump_graph(fixed)
    assert open_dimensions(fixed) == ()
    assert {tensor.name: tensor.shape for tensor in describe_graph(fixed).inputs}["features"] == (2, 4, 24)
    assert {tensor.name: tensor.shape for tensor in describe_graph(fixed).outputs}["logits"] == (2, 7)
    folded = fold_constants(fixed)
    assert not {"Shape", "Range", "ConstantOfShape"} & {node.op_type for node in folded.graph.node}
    feeds = {
        "features": np.random.default_rng(0).normal(size=(2, 4, 24)).astype(np.float32),
        "length": np.array([4, 1], np.int64),
    }
    for name, value in run_graph(head, feeds).items():
        np.testing.assert_allclose(run_graph(folded, feeds)[name], value, atol=1e-6)


def test_the_others_stay_open() -> None:
    head = miniature_head()
    assert open_dimensions(head) == ("B", "T")
    assert open_dimensions(fix_dimensions(head, {"T": 4})) == ("B",)
    assert open_dimensions(head) == ("B", "T")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"Z": 1}, "no open dimension 'Z', only B, T"), ({"T": 0}, "'T': got 0, expected 1 or more")],
)
def test_what_cannot_be_fixed_is_named(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fix_dimensions(miniature_head(), sizes)
