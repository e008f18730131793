"""Records of built networks in a sweep's folder."""

from __future__ import annotations

from pathlib import Path

from fer_edge.core.files import sha256_bytes
from fer_edge.sweep.build import NetworkRecord, SweepFolder
from fer_edge.sweep.grid import Axes, Network, Unit


def test_a_retrained_run_is_exported_again(tmp_path: Path) -> None:
    folder = SweepFolder(path=tmp_path)
    (tmp_path / "run").mkdir()
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(b"weights")
    network = Network(name="student", axes=Axes())
    unit = Unit(name="student", networks=(network,), run=tmp_path / "run")
    record = NetworkRecord(network="student", weights_sha256=sha256_bytes(b"weights"))
    folder.write_record(unit, network, record)
    assert folder.record(unit, network) == record
    weights.write_bytes(b"retrained")
    assert folder.record(unit, network) is None
