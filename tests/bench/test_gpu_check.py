from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
from click.testing import CliRunner
from fake_cuda import FakeCuda
from tiny import tiny_bundle

from fer_edge.bench import gpu_check
from fer_edge.bench.gpu_check import GpuCheckOptions, GpuCheckReport, check_gpu
from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import SessionError
from fer_edge.core.machine import GpuReport, machine_report
from fer_edge.export import tensorrt_backend
from fer_edge.runtime.cuda_python_device import CudaPythonDevice

FEW = GpuCheckOptions(runs=10, cycles=4, threads=3)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCuda:
    """A machine with a fake GPU of SM86, cuda-python and NVRTC; no TensorRT of any kind."""
    cuda = fake_cuda.install(monkeypatch, FakeCuda())
    report = GpuReport(name=cuda.name, compute_capability="8.6", memory_bytes=1 << 30, cuda_driver="12.6")
    here = dataclasses.replace(machine_report(), gpus=(report,))
    for module in (gpu_check, tensorrt_backend):
        monkeypatch.setattr(module, "machine_report", lambda: here)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(tensorrt_backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "cache"))
    return cuda


def outcomes(report: GpuCheckReport) -> dict[str, str]:
    return {path.name: path.outcome for path in report.paths}


def said(report: GpuCheckReport, name: str) -> str:
    return next(path.detail for path in report.paths if path.name == name)


class TestWithoutAGpu:
    def test_says_so_and_exits_with_1(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle) -> None:
        here = dataclasses.replace(machine_report(), gpus=())
        monkeypatch.setattr(gpu_check, "machine_report", lambda: here)
        with pytest.raises(SessionError, match="expected a CUDA GPU"):
            check_gpu(bundle)
        done = CliRunner().invoke(main, ["gpu-check", str(bundle.path), "--json", str(tmp_path / "result.json")])
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: GPU: got none")
        assert not (tmp_path / "result.json").exists()


class TestWithoutTensorRt:
    def test_names_what_is_missing(self, cuda: FakeCuda, bundle: Bundle) -> None:
        report = check_gpu(bundle, options=FEW)
        assert report.failed == ()
        assert outcomes(report)["tensorrt"] == outcomes(report)["rtx"] == "not available"
        assert said(report, "tensorrt").startswith("tensorrt is not installed")

    def test_every_path_is_told_beforehand(self, cuda: FakeCuda, bundle: Bundle) -> None:
        steps: list[tuple[str, int, int]] = []
        check_gpu(bundle, options=FEW, progress=lambda *step: steps.append(step))
        names = ("torch", "cuda", "ort-tensorrt", "tensorrt", "rtx")
        assert steps == [(f"trying {name}", number, 5) for number, name in enumerate(names)]

    def test_a_gpu_that_rtx_does_not_list(
        self, cuda: FakeCuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report = GpuReport(name="NVIDIA H100", compute_capability="9.0", memory_bytes=1, cuda_driver="12.6")
        here = dataclasses.replace(machine_report(), gpus=(report,))
        monkeypatch.setattr(gpu_check, "machine_report", lambda: here)
        checked = check_gpu(bundle, options=FEW)
        assert said(checked, "rtx").endswith("NVIDIA H100 is SM90")
        assert outcomes(checked)["rtx"] == "not available"


class TestWithTensorRt:
    @pytest.mark.parametrize(
        ("package", "version", "path"), [("tensorrt", "11.4.1", "tensorrt"), ("tensorrt_rtx", "1.7.1.116", "rtx")]
    )
    def test_builds_runs_compares_and_measures(
        self, cuda: FakeCuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, package: str, version: str, path: str
    ) -> None:
        fake_tensorrt.install(monkeypatch, version, cuda, package=package)
        report = check_gpu(bundle, options=dataclasses.replace(FEW, cycles=3))
        assert report.failed == (), said(report, path)
        result = next(each for each in report.paths if each.name == path)
        assert result.detail.startswith(f"{package} {version}, cuda-python")
        assert result.measures["max_abs_logit_diff"] < 0.02
        assert result.measures["label_agreement"] == 1
        assert result.measures["cuda_graph"] == {"encoder": "captured", "head": "captured"}
        assert result.measures["layers"] == {"encoder": 2, "head": 2}
        assert set(result.measures["latency_ms"]) == {"encoder", "head"}
        assert cuda.left_behind() == {}

    def test_memory_that_is_left_behind_is_a_failure(
        self, cuda: FakeCuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_tensorrt.install(monkeypatch, "1.7.1.116", cuda, package="tensorrt_rtx")
        monkeypatch.setattr(CudaPythonDevice, "free", lambda self, pointer: None)
        monkeypatch.setattr(gpu_check, "_LEAK_LIMIT_BYTES", 0)
        report = check_gpu(bundle, options=FEW)
        assert report.failed == ("rtx",)
        assert "4 sessions left" in said(report, "rtx")

    def test_wrong_logits_are_a_failure(self, cuda: FakeCuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        module = fake_tensorrt.install(monkeypatch, "1.7.1.116", cuda, package="tensorrt_rtx")
        assert module.__name__ == "tensorrt_rtx"
        logits = gpu_check._Checker._logits
        turns = iter(range(100))

        def off(self: gpu_check._Checker, network: object) -> np.ndarray:
            return logits(self, network) + next(turns)  # type: ignore[arg-type]

        monkeypatch.setattr(gpu_check._Checker, "_logits", off)
        report = check_gpu(bundle, options=FEW)
        assert "rtx" in report.failed
        assert "logits: got a difference" in said(report, "rtx")


class TestCommand:
    def test_writes_the_result(self, cuda: FakeCuda, bundle: Bundle, tmp_path: Path) -> None:
        out = tmp_path / "device" / "gpu-check.json"
        arguments = ["gpu-check", str(bundle.path), "--json", str(out), "--runs", "10", "--cycles", "2"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        assert "not available" in done.stdout
        result = json.loads(out.read_text())
        assert result["machine"]["gpu"] == "Fake GPU"
        assert [path["name"] for path in result["paths"]][-1] == "rtx"
        assert result["command"].split()[0] == "fer-edge"  # the rest is how the tests were started

    def test_exits_with_1_where_a_path_failed_and_writes_it_all_the_same(
        self, cuda: FakeCuda, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_tensorrt.install(monkeypatch, "1.7.1.116", cuda, package="tensorrt_rtx")
        monkeypatch.setattr(gpu_check, "_TOLERANCES", dict.fromkeys(gpu_check._TOLERANCES, -1.0))
        out = tmp_path / "gpu-check.json"
        arguments = ["gpu-check", str(bundle.path), "--json", str(out), "--runs", "10", "--cycles", "2"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 1
        assert "got failures of rtx" in done.stderr
        assert json.loads(out.read_text())["paths"][-1]["outcome"] == "failed"
