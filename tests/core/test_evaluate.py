"""The evaluation loop against the network called by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_bundle

from fer_edge.core.errors import InputError
from fer_edge.core.evaluate import evaluate
from fer_edge.core.preprocess import prepare_stills
from fer_edge.runtime.inference import Network


@pytest.fixture
def stills() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 24, 24), dtype=np.uint8)


def test_batches_make_no_difference_and_windows_share_one_pass(tmp_path: Path, stills: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    bundle = tiny_bundle(tmp_path / "bundle")
    spec = bundle.manifest.preprocess
    with Network.open(bundle) as network:
        outputs = evaluate(
            network, stills, spec, batch=4, windows=(1, 3), progress=lambda done, total: seen.append((done, total))
        )
        features = network.encode(prepare_stills(stills, spec))
        np.testing.assert_allclose(outputs.features, features, atol=1e-6)
        for window in (1, 3):
            windows = np.stack([features] * window, axis=1)
            expected = network.logits(windows, np.full(len(stills), window))
            assert outputs.by_window[window].dtype == np.float32
            np.testing.assert_allclose(outputs.by_window[window], expected, atol=1e-5)
    assert seen == [(4, 11), (8, 11), (11, 11)]


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, stills: np.ndarray) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    spec = bundle.manifest.preprocess
    with Network.open(bundle) as network:
        with pytest.raises(InputError, match="stills: got none"):
            evaluate(network, stills[:0], spec)
        with pytest.raises(InputError, match="expected 1 or more"):
            evaluate(network, stills, spec, windows=(0,))
        with pytest.raises(InputError, match="uint8"):
            evaluate(network, stills.astype(np.float32), spec)
