"""Records of built networks in a sweep's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer_edge.core.files import sha256_bytes
from fer_edge.sweep.build import NetworkRecord, SweepFolder
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
def test_a_retrained_run_is_exported_again(tmp_path: Path, run: dict[str, Any]) -> None:
    folder = SweepFolder(path=tmp_path)
    (tmp_path / "run").mkdir()
    network = Network(name="student", axes=Axes())
    unit = Unit(name="student", networks=(network,), run=tmp_path / "run")
    record = NetworkRecord(network="student", run=run)
    folder.write_record(unit, network, record)
    assert folder.record(unit, network) == record, "without the run its record stays valid"
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(WEIGHTS)
    assert folder.record(unit, network) == record
    weights.write_bytes(b"retrained")
    assert folder.record(unit, network) is None
