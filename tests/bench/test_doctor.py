from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import cv2
import onnxruntime
import pytest

from fer_edge.bench.doctor import Check, examine
from fer_edge.runtime.providers import PROVIDERS


def _checks() -> dict[str, Check]:
    return {check.name: check for check in examine().checks}


def test_every_provider_is_tried() -> None:
    checks = _checks()
    assert {f"provider {name}" for name in PROVIDERS} <= checks.keys()
    assert checks["provider cpu"].works
    assert onnxruntime.__version__ in checks["provider cpu"].detail


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_provider_that_only_claims_to_be_there_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert not _checks()["provider cuda"].works


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    checks = _checks()
    assert "pip install 'fer-edge[rtx]'" in checks["TensorRT-RTX"].detail
    assert "tensorrt is not installed" in checks["TensorRT"].detail


def test_cascades_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _checks()["face detection"].works
    monkeypatch.delattr(cv2, "CascadeClassifier")
    check = _checks()["face detection"]
    assert not check.works
    assert "CascadeClassifier" in check.detail


def test_the_data_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_EDGE_DATA", raising=False)
    assert "not set" in _checks()["FER_EDGE_DATA"].detail
    monkeypatch.setenv("FER_EDGE_DATA", str(tmp_path / "none"))
    assert "does not exist" in _checks()["FER_EDGE_DATA"].detail
    monkeypatch.setenv("FER_EDGE_DATA", str(tmp_path))
    assert _checks()["FER_EDGE_DATA"] == Check(name="FER_EDGE_DATA", works=True, detail=str(tmp_path))


def test_packages_and_their_extras_come_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = [
        "numpy>=1.24",
        "tomli>=2.0; python_version < '3.11'",
        "torch<2.14,>=2.6; extra == 'train'",
        "onnx>=1.16; extra == 'calibrate'",
        "onnx>=1.16; extra == 'train'",
        "onnx>=1.16; extra == 'all'",
        "fer-edge-no-such; extra == 'jetson'",
        "pytest>=8; extra == 'dev'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: stated)
    packages = {package.name: package for package in examine().packages}
    assert list(packages) == ["numpy", "torch", "onnx", "fer-edge-no-such"]
    assert packages["numpy"].extras == ()
    assert packages["onnx"].extras == ("calibrate", "train")
    assert packages["onnx"].version is not None
    assert packages["fer-edge-no-such"].version is None
