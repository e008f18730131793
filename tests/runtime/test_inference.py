from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import pytest
from normalisation import normalise
from onnx import numpy_helper
from tiny import FEATURES, SIZE, TOKENS, WINDOW, tiny_bundle, tiny_encoder, tiny_frames, tiny_head, tiny_variant

from fer_edge.core.bundle import Bundle, Manifest, PreprocessSpec
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.errors import BundleError, InputError, SessionError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.metrics import softmax
from fer_edge.runtime.inference import Network, choose_variant
from fer_edge.runtime.providers import open_session


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


def _ones(count: int, value: int = 1) -> np.ndarray:
    return np.full(count, value, np.int64)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
class TestNetwork:
    def test_says_what_runs(self, bundle: Bundle, provider: str) -> None:
        with Network.open(bundle, provider=provider, threads=2) as network:
            assert (network.frame_size, network.feature_size, network.window) == (SIZE, FEATURES, WINDOW)
            info = network.info.to_json()
        assert info.pop("provider_version")
        assert info == {
            "bundle": "tiny", "sha256": bundle.sha256, "variant": "fp32", "precision": "fp32", "provider": provider,
            "threads": 2, "reading": "fer2013",
        }  # fmt: skip

    def test_shapes_and_batches(self, bundle: Bundle, provider: str) -> None:
        frames = tiny_frames(300)
        with Network.open(bundle.path, provider=provider) as network:
            features, attention = network.encode_with_attention(frames)
            assert features.shape == (300, FEATURES)
            assert attention.shape == (300, TOKENS)
            one = np.concatenate([network.encode(frames[index : index + 1]) for index in (0, 255, 256, 299)])
            np.testing.assert_allclose(features[[0, 255, 256, 299]], one, atol=1e-6)
            windows = features[:12].reshape(3, 4, FEATURES)
            logits, weights = network.logits_with_attention(windows, _ones(3, 4))
            assert logits.shape == (3, 7)
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)

    def test_the_graph_normalises_as_numpy_does(self, bundle: Bundle, provider: str) -> None:
        """The encoder fed with a frame equals its own convolution fed with `normalise` of it."""
        frames = tiny_frames(2)
        model = onnx.shape_inference.infer_shapes(tiny_encoder())
        inner = onnx.utils.Extractor(model).extract_model(["plane"], ["features"])
        with open_session(inner.SerializeToString()) as session:
            planes = normalise(frames, PreprocessSpec(size=SIZE)).reshape(2, 1, SIZE, SIZE)
            expected = session.run({"plane": planes})["features"]
        with Network.open(bundle, provider=provider) as network:
            np.testing.assert_allclose(network.encode(frames), expected, atol=1e-5)


def test_temperature_softens_probabilities_and_leaves_logits(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype(np.float32)
    with (
        Network.open(tiny_bundle(tmp_path / "cold")) as cold,
        Network.open(tiny_bundle(tmp_path / "warm", temperature=2.5)) as warm,
    ):
        logits = cold.logits(features, _ones(2, 3))
        np.testing.assert_array_equal(warm.logits(features, _ones(2, 3)), logits)
        np.testing.assert_allclose(cold.probabilities(features, _ones(2, 3)), softmax(logits), atol=1e-7)
        np.testing.assert_allclose(warm.probabilities(features, _ones(2, 3)), softmax(logits / 2.5), atol=1e-6)


def test_probabilities_that_overflow_are_an_error(tmp_path: Path) -> None:
    features = np.full((1, 3, FEATURES), 1e37, np.float32)
    with (
        Network.open(tiny_bundle(tmp_path / "cold", temperature=0.01)) as network,
        np.errstate(all="ignore"),
        pytest.raises(SessionError, match="got NaN among the probabilities"),
    ):
        network.probabilities(features, _ones(1, 3))


@pytest.mark.parametrize(
    ("features", "length", "message"),
    [
        (np.zeros((2, 3, FEATURES), np.float32), _ones(2, 4), r"length: got \[4, 4\], expected 1 to 3"),
        (np.zeros((2, 3, FEATURES), np.float32), _ones(2, 0), r"length: got \[0, 0\], expected 1 to 3"),
        (np.zeros((2, 3, FEATURES), np.float32), _ones(3), "length: got 3 of them for 2 windows"),
        (np.zeros((2, 3, FEATURES), np.float32), np.ones(2, np.int32), "got dtype int32, expected int64"),
        (np.zeros((3, FEATURES), np.float32), _ones(3), "got shape"),
    ],
)
def test_refuses_other_windows(bundle: Bundle, features: Any, length: Any, message: str) -> None:
    with Network.open(bundle) as network, pytest.raises(InputError, match=message):
        network.logits(features, length)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, SIZE, SIZE), np.float32),
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((0, SIZE, SIZE), np.uint8),
        np.zeros((300, 8, 8), np.uint8),
        "frames",
        np.uint8(3),
    ],
)
def test_refuses_other_frames(bundle: Bundle, frames: Any) -> None:
    with Network.open(bundle) as network, pytest.raises(InputError, match="frames"):
        network.encode(frames)


class TestOpening:
    def test_a_damaged_graph(self, bundle: Bundle) -> None:
        path = bundle.path / "graphs" / f"{bundle.variant('fp32').head.sha256}.onnx"
        data = bytearray(path.read_bytes())
        data[30] ^= 4
        path.write_bytes(data)
        with pytest.raises(BundleError, match="sha256"):
            Network.open(bundle)

    def test_a_truncated_graph_is_named(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "bundle", head=tiny_head().SerializeToString()[:-60])
        with pytest.raises(BundleError, match=r"fp32 head: .*not a whole ONNX file"):
            Network.open(bundle)

    def test_nan_weights_are_named(self, tmp_path: Path) -> None:
        model = tiny_encoder()
        _spoil(model, "dense", np.nan)
        with pytest.raises(SessionError, match=r"fp32 encoder: .*the weight 'dense' holds NaN"):
            Network.open(tiny_bundle(tmp_path / "bundle", encoder=model))

    @pytest.mark.parametrize("part", ["encoder", "head"])
    def test_finite_weights_that_compute_nan_are_named(self, tmp_path: Path, part: str) -> None:
        encoder, head = tiny_encoder(), tiny_head()
        if part == "encoder":
            _spoil(encoder, "epsilon", -1e9)  # the root of a negative variance
        else:
            _spoil(head, "classes", 3e38)
            _spoil(head, "query", 0)
        with pytest.raises(SessionError, match=f"the {part} of variant 'fp32' computes NaN or infinity"):
            Network.open(tiny_bundle(tmp_path / "bundle", encoder=encoder, head=head))

    def test_graphs_that_do_not_fit_the_manifest(self, tmp_path: Path) -> None:
        larger = tiny_bundle(tmp_path / "larger", preprocess=PreprocessSpec(size=24))
        with pytest.raises(BundleError, match=r"the encoder's input 'frames' does not fit the manifest: got .*16.*24"):
            Network.open(larger)
        swapped = tiny_bundle(tmp_path / "swapped", encoder=tiny_head(), head=tiny_encoder())
        with pytest.raises(BundleError, match="the encoder's input 'frames' does not fit"):
            Network.open(swapped)

    def test_an_encoder_without_attention(self, tmp_path: Path) -> None:
        model = tiny_encoder()
        model.graph.output.pop()
        with pytest.raises(BundleError, match="the encoder's output 'attention' does not fit"):
            Network.open(tiny_bundle(tmp_path / "bundle", encoder=model))


class TestChoosing:
    @pytest.fixture
    def both(self, bundle: Bundle) -> Bundle:
        encoder = tiny_encoder(seed=5).SerializeToString()
        variant = tiny_variant("int8", encoder, bundle.graph_bytes("fp32", "head"), parent="fp32")
        return update_bundle(bundle, bundle.manifest.with_variant(variant), {sha256_bytes(encoder): encoder})

    def test_auto_is_int8_where_there_is_one(self, bundle: Bundle, both: Bundle) -> None:
        assert choose_variant(bundle.manifest) == "fp32"
        assert choose_variant(both.manifest) == "int8"
        assert choose_variant(both.manifest, provider="openvino") == "int8"
        assert choose_variant(both.manifest, provider="cuda") == "fp32"
        assert choose_variant(both.manifest, variant="fp32") == "fp32"

    def test_auto_passes_over_what_the_parity_chain_found_wrong(self, both: Bundle) -> None:
        def judged(name: str, manifest: Manifest) -> Manifest:
            stages = [{"provider": "openvino", "passed": False}, {"provider": "cpu", "passed": True}]
            variant = next(each for each in manifest.variants if each.name == name)
            return manifest.with_variant(dataclasses.replace(variant, parity={"chain": {"stages": stages}}))

        half = judged("int8", both.manifest)
        assert choose_variant(half, provider="openvino") == "fp32"
        assert choose_variant(half, provider="openvino", variant="int8") == "int8"
        assert choose_variant(half, provider="cpu") == "int8"
        with pytest.raises(BundleError, match="'int8' and 'fp32' failed the parity check on 'openvino'"):
            choose_variant(judged("fp32", half), provider="openvino")

    def test_an_unknown_one_lists_those_there_are(self, both: Bundle) -> None:
        with pytest.raises(BundleError, match=r"no variant 'fp16'; it has fp32, int8"):
            Network.open(both, variant="fp16")


def _spoil(model: onnx.ModelProto, name: str, value: float) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    weights = np.full(tuple(tensor.dims), value, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(weights, name))
