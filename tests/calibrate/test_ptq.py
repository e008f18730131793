"""Post-training quantization by the real NNCF, on a miniature of the real encoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import miniature_encoder, miniature_frames, run_graph
from onnx import ModelProto, helper, numpy_helper

from fer_edge.calibrate.ptq import float_nodes, quantize_encoder
from fer_edge.calibrate.recipe import PtqRecipe
from fer_edge.core.errors import InputError, RecipeError
from fer_edge.graph.cost import graph_parameters
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import to_signed_int8, unsigned_nodes

NORMALISATION = {"Div", "ReduceMean", "Sub", "Sqrt", "Unsqueeze"}


def encoder_with_region_means() -> ModelProto:
    """The miniature with its mean pooling as a product of constants, as the exporter writes it."""
    model = miniature_encoder()
    [pool] = [node for node in model.graph.node if node.op_type == "AveragePool"]
    [flat] = [node for node in model.graph.node if node.output[0] == "channels_tokens"]
    cells = np.arange(16).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)  # of each of four regions
    means = np.zeros((16, 4), np.float32)
    for region, places in enumerate(cells):
        means[places, region] = 0.25
    model.graph.initializer.extend(
        [numpy_helper.from_array(means, "means"), numpy_helper.from_array(np.array([0, 16, 16]), "map_shape")]
    )
    pool.CopyFrom(helper.make_node("Reshape", ["last_active", "map_shape"], ["map"], name="regions/Reshape"))
    flat.CopyFrom(helper.make_node("MatMul", ["map", "means"], ["channels_tokens"], name="regions/MatMul"))
    return model


def miniature() -> Graph:
    return Graph(miniature_encoder())


@pytest.fixture(scope="module")
def seen() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def int8(seen: list[tuple[int, int]]) -> Graph:
    return quantize_encoder(
        miniature(),
        miniature_frames(40, seed=5),
        recipe=PtqRecipe(batch=16, bias_correction=True),
        overflow_fix="disable",
        progress=lambda what, done, total: seen.append((done, total)),
    )


def kernels(graph: Graph) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and scales of each convolution's weights."""
    found = []
    for node in graph.nodes:
        if node.op_type == "Conv":
            source = graph.producer(node.input[1])
            assert source is not None
            assert source.op_type == "DequantizeLinear"
            found.append((graph.constant(source.input[0]), graph.constant(source.input[1])))
    return found  # type: ignore[return-value]


def test_it_is_a_valid_graph_of_the_same_kind(int8: Graph) -> None:
    int8.write()
    assert int8.opset == 17
    assert graph_parameters(int8) == graph_parameters(Graph(miniature_encoder()))


def test_convolutions_have_int8_weights_per_channel(int8: Graph) -> None:
    assert [(values.dtype, scales.shape) for values, scales in kernels(int8)] == [
        (np.int8, (8,)), (np.int8, (8,)), (np.int8, (16,)),
    ]  # fmt: skip


def test_activations_are_per_tensor_with_zero_point_0(int8: Graph) -> None:
    quantizers = [node for node in int8.nodes if node.op_type == "QuantizeLinear"]
    kinds = []
    for node in quantizers:
        scale, zero = int8.constant(node.input[1]), int8.constant(node.input[2])
        assert scale is not None
        assert zero is not None
        assert scale.ndim == 0
        assert zero == 0
        kinds.append(zero.dtype)
    assert {np.dtype(np.uint8), np.dtype(np.int8)} == set(kinds)


def test_both_sides_of_the_residual_addition_are_quantized(int8: Graph) -> None:
    (addition,) = (node for node in int8.nodes if node.op_type == "Add" and "residual" in node.name)
    sources = [int8.producer(name) for name in addition.input]
    assert [node.op_type for node in sources if node] == ["DequantizeLinear", "DequantizeLinear"]


def test_normalisation_and_sequence_part_stay_float(int8: Graph) -> None:
    first = next(node for node in int8.nodes if node.op_type == "Conv")
    quantizers = [node for node in int8.ancestors([first.input[0]]) if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == 1
    before = {node.op_type for node in int8.ancestors([quantizers[0].input[0]])}
    assert before >= NORMALISATION
    assert "QuantizeLinear" not in before
    (lstm,) = (node for node in int8.nodes if node.op_type == "LSTM")
    assert all(int8.producer(name) is None for name in lstm.input[1:3])
    after = {node.op_type for node in int8.descendants([lstm])}
    assert not after & {"QuantizeLinear", "DequantizeLinear"}


def test_features_stay_near_at_any_batch(int8: Graph) -> None:
    for count in (1, 5, 33):
        feeds = {"frames": miniature_frames(count, seed=9)}
        exact, got = (run_graph(model, feeds)["features"] for model in (miniature_encoder(), int8))
        assert 0 < np.abs(got - exact).mean() < 0.05 * exact.std()


def test_the_signed_form_is_signed_and_near(int8: Graph) -> None:
    signed = int8.copy()
    to_signed_int8(signed)
    assert unsigned_nodes(int8)
    assert unsigned_nodes(signed) == ()
    feeds = {"frames": miniature_frames(33, seed=9)}
    exact, got = (run_graph(model, feeds)["features"] for model in (miniature_encoder(), signed))
    assert np.abs(got - exact).mean() < 0.1 * exact.std()


def test_the_overflow_fix_halves_the_range_of_the_weights(int8: Graph) -> None:
    half = quantize_encoder(miniature(), miniature_frames(8, seed=5), recipe=PtqRecipe(), overflow_fix="enable")
    assert {int(np.abs(values.astype(int)).max()) for values, _ in kernels(int8)} == {127}
    assert max(int(np.abs(values.astype(int)).max()) for values, _ in kernels(half)) <= 64


def test_the_same_sample_gives_the_same_graph() -> None:
    made = {
        quantize_encoder(miniature(), miniature_frames(16, seed=5), recipe=PtqRecipe(), overflow_fix="enable").write()
        for _ in range(2)
    }
    assert len(made) == 1


def test_progress_reaches_its_end(int8: Graph, seen: list[tuple[int, int]]) -> None:
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {6}
    assert seen[-1] == (6, 6)


def test_it_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    recipe = PtqRecipe(float_nodes=("conv/inner_out",))
    model = quantize_encoder(miniature(), miniature_frames(4), recipe=recipe, overflow_fix="disable")
    assert capfd.readouterr() == ("", "")
    left = next(node for node in model.nodes if node.name == "conv/inner_out")
    assert model.producer(left.input[1]) is None, "a node that the recipe leaves float has float weights"


class TestTheRoundedMap:
    def quantized(self, recipe: PtqRecipe) -> Graph:
        frames = miniature_frames(16, seed=5)
        return quantize_encoder(Graph(encoder_with_region_means()), frames, recipe=recipe, overflow_fix="disable")

    def test_the_graph_under_test_computes_what_the_miniature_does(self) -> None:
        feeds = {"frames": miniature_frames(3, seed=9)}
        ours, theirs = (run_graph(model, feeds) for model in (encoder_with_region_means(), miniature_encoder()))
        np.testing.assert_allclose(ours["features"], theirs["features"], atol=1e-5)

    def test_it_is_rounded_and_what_it_is_multiplied_by_is_not(self) -> None:
        model = self.quantized(PtqRecipe())
        [means] = [node for node in model.nodes if node.name == "regions/MatMul"]
        reshape = model.producer(means.input[0])
        assert reshape is not None
        rounded = model.producer(reshape.input[0])
        assert rounded is not None
        assert rounded.op_type == "DequantizeLinear"
        matrix = model.constant(means.input[1])
        assert matrix is not None
        assert set(np.unique(matrix)) == {0, np.float32(0.25)}
        assert not any("means" in name and name != means.input[1] for name in model.initializers)
        after = {node.op_type for node in model.descendants([means])}
        assert not after & {"QuantizeLinear", "DequantizeLinear"}
        feeds = {"frames": miniature_frames(33, seed=9)}
        exact, got = (run_graph(each, feeds)["features"] for each in (encoder_with_region_means(), model))
        assert 0 < np.abs(got - exact).mean() < 0.05 * exact.std()
        to_signed_int8(model)
        assert unsigned_nodes(model) == ()

    @pytest.mark.parametrize(
        "recipe",
        [
            PtqRecipe(float_nodes=("regions/MatMul",)),
            PtqRecipe(float_nodes=("conv/last_out",)),
        ],
        ids=["its reader is float", "its maker is float"],
    )
    def test_it_stays_float_where(self, recipe: PtqRecipe) -> None:
        graph = self.quantized(recipe)
        reshape = graph.producer("map")
        assert reshape is not None
        source = graph.producer(reshape.input[0])
        assert source is not None
        assert source.op_type == "Relu"


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"got 'conv/iner_out', .*; did you mean 'conv/inner_out'\?"):
        float_nodes(Graph(miniature_encoder()), PtqRecipe(float_nodes=("conv/iner_out",)))


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(InputError, match="calibration frames: got none"):
        quantize_encoder(miniature(), miniature_frames(4)[:0], recipe=PtqRecipe(), overflow_fix="disable")


_SILENT = """
import os, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append((event, arguments)) if event.startswith("socket.") else None)
from pathlib import Path
from fer_edge.calibrate import require_packages
require_packages(needed_by="this test")
from fer_edge.calibrate.ptq import quantize_encoder
from fer_edge.calibrate.recipe import PtqRecipe
from fer_edge.graph.graph import Graph
from miniature import miniature_encoder, miniature_frames
recipe = PtqRecipe()
quantize_encoder(Graph(miniature_encoder()), miniature_frames(4), recipe=recipe, overflow_fix="disable")
assert not opened, opened
from nncf.telemetry import decorator, wrapper
assert not isinstance(decorator.telemetry, wrapper.NNCFTelemetry), "NNCF holds a sender"
assert "openvino_telemetry" not in sys.modules
assert not list(Path(os.environ["HOME"]).iterdir()), "something was written to the home folder"
assert "pytest" not in sys.modules, "NNCF holds its tongue under pytest of its own accord"
print("silent")
"""


def test_nothing_is_reported_home(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _SILENT],
        env={"HOME": str(tmp_path), "PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "silent\n"
