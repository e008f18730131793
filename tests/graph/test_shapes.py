from __future__ import annotations

import numpy as np
import pytest
from miniature import applied, miniature_head, run_graph

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph
from fer_edge.graph.simplify import fix_dimensions, fold_constants


def test_a_fixed_dimension_goes_through_the_whole_graph_and_folding_drops_what_computed_it() -> None:
    head = miniature_head()
    fixed = applied(fix_dimensions, head, {"B": 2, "T": 4})
    Graph(fixed).write()
    assert Graph(fixed).inputs["features"].shape == (2, 4, 24)
    assert Graph(fixed).outputs["logits"].shape == (2, 7)
    folded = applied(fold_constants, fixed)
    assert not {"Shape", "Range", "ConstantOfShape"} & {node.op_type for node in folded.graph.node}
    feeds = {
        "features": np.random.default_rng(0).normal(size=(2, 4, 24)).astype(np.float32),
        "length": np.array([4, 1], np.int64),
    }
    for name, value in run_graph(head, feeds).items():
        np.testing.assert_allclose(run_graph(folded, feeds)[name], value, atol=1e-6)


def test_the_others_stay_open() -> None:
    fixed = Graph(applied(fix_dimensions, miniature_head(), {"T": 4}))
    assert fixed.inputs["features"].shape == ("B", 4, 24)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"Z": 1}, "got 'Z', expected one of B, T"), ({"T": 0}, "'T': got 0, expected 1 or more")],
)
def test_what_cannot_be_fixed_is_named(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        applied(fix_dimensions, miniature_head(), sizes)
