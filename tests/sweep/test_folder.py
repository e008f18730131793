"""What a sweep's folder takes for made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer_edge.core.files import sha256_bytes
from fer_edge.sweep.folder import Made, SweepFolder
from fer_edge.sweep.grid import Axes, Network, Unit

WEIGHTS = b"weights"
HASH = sha256_bytes(WEIGHTS)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param({"weights_sha256": HASH, "training": {}}, id="the run itself"),
        pytest.param(
            {"weights_sha256": "other", "training": {"parent": {"weights_sha256": HASH}}}, id="pruned from it"
        ),
        pytest.param({"weights_sha256": HASH, "training": {"parent": {"sha256": "a bundle"}}}, id="itself pruned once"),
    ],
)
def test_a_run_that_was_trained_anew_is_another(tmp_path: Path, run: dict[str, Any]) -> None:
    folder = SweepFolder(path=tmp_path, id="sweep")
    (tmp_path / "run").mkdir()
    network = Network(name="student", axes=Axes())
    unit = Unit(name="student", networks=(network,), run=tmp_path / "run")
    folder.place(unit)
    made = Made(network="student", run=run)
    folder.record(unit, network, made)
    assert folder.made(unit, network) == made, "where the run is gone, what came of it stays"
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(WEIGHTS)
    assert folder.made(unit, network) == made
    weights.write_bytes(b"trained anew")
    assert folder.made(unit, network) is None
