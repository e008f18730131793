from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
from fake_cuda import FakeCuda
from tiny import WINDOW, tiny_bundle, tiny_frames

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError, MissingPackageError, SessionError
from fer_edge.core.files import sha256_file
from fer_edge.core.machine import GpuReport, machine_report
from fer_edge.export import tensorrt_backend
from fer_edge.export.job import target_job
from fer_edge.export.target import TargetPlan, export_target
from fer_edge.export.tensorrt_backend import TensorRtBackend, rebuild_engines
from fer_edge.runtime.engine_files import read_engine
from fer_edge.runtime.inference import Network

TARGETS = {"8.6.2": "8.6", "10.3.0": "10.3", "10.13.2.6": "10.13", "11.4.1": "11"}


class Machine:
    """A machine with a fake GPU, a fake driver and a fake TensorRT; the GPU is not there where `gpu` is false."""

    def __init__(self, patch: pytest.MonkeyPatch, version: str, *, package: str = "tensorrt", gpu: bool = True) -> None:
        self.cuda = FakeCuda()
        fake_cuda.install(patch, self.cuda)
        self.module = fake_tensorrt.install(patch, version, self.cuda, package=package)
        patch.setattr(tensorrt_backend.importlib.util, "find_spec", lambda name: object())
        report = GpuReport(name=self.cuda.name, compute_capability="8.6", memory_bytes=1 << 30, cuda_driver="12.6")
        here = dataclasses.replace(machine_report(), gpus=(report,) if gpu else ())
        patch.setattr(tensorrt_backend, "machine_report", lambda: here)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "cache"))


def recipe(tmp_path: Path, flavour: str, **changes: object) -> str:
    """A recipe of one's own for the flavour."""
    values = {
        "summary": "a test", "kind": "tensorrt", "provider": "rtx" if flavour == "rtx" else "tensorrt",
        "flavour": flavour, "precision": "fp32", **changes,
    }  # fmt: skip
    path = tmp_path / f"{flavour}.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    shapes = ["[shapes]", "frames = { min = 1, opt = 1, max = 4 }", "windows = { min = 1, opt = 1, max = 4 }"]
    path.write_text("\n".join([*lines, *shapes, ""]))
    return str(path)


class TestOnTheGpuThatRunsIt:
    @pytest.mark.parametrize("version", list(TARGETS))
    def test_builds_runs_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle, version: str
    ) -> None:
        machine = Machine(monkeypatch, version)
        report = export_target(bundle, target=recipe(tmp_path, TARGETS[version]), out=tmp_path / "out")
        assert report.parity is not None
        assert report.parity.max_abs_diff < 1e-5
        assert report.provider == f"tensorrt {version}"
        engine = read_engine(next((tmp_path / "out").glob(f"{bundle.variant('fp32').encoder.sha256}-*.engine")))
        assert f"-fake-gpu-tensorrt-{version}-fp32.engine" in engine.path.name
        said = engine.sidecar
        assert said.engine_sha256 == sha256_file(engine.path)
        assert said.check == "ran on Fake GPU; CUDA graph captured"
        assert [(layer.name, layer.kind) for layer in said.layers] == [("conv", "CaskConvolution"), ("copy", "")]
        assert said.timing_cache_sha256 == sha256_file(tmp_path / "out" / "timing.cache")
        assert machine.cuda.left_behind() == {}

    def test_tensorrt_11_4_1_builds_targets_of_11_and_no_other_way_round(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "11.4.1")
        export_target(bundle, target=recipe(tmp_path, "11"), out=tmp_path / "out")
        Machine(monkeypatch, "11.4.0")
        with pytest.raises(SessionError, match=r"made for TensorRT 11\.4\.1 .*tensorrt 11\.4\.0 is installed"):
            export_target(bundle, target=recipe(tmp_path, "11.4.1"), out=tmp_path / "other")

    def test_an_accelerator_that_the_gpu_lacks_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "11.4.1")
        target = recipe(tmp_path, "11.4.1", dla_core=0)
        with pytest.raises(InputError, match="Fake GPU has no deep learning accelerator; leave dla_core out"):
            TargetPlan(target_job(bundle, target=target)).backend.check()

    def test_the_timing_cache_is_kept_for_the_next_build(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        machine = Machine(monkeypatch, "10.3.0")
        for name in ("one", "two"):
            export_target(bundle, target=recipe(tmp_path, "10.3"), out=tmp_path / name)
        given = [built.config.state.cache.blob for built in machine.module.built]
        assert given == [b"", *[b"timings of 10.3.0"] * 3]

    def test_another_version_than_the_recipes_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "10.13.2.6")
        job = target_job(bundle, target=recipe(tmp_path, "10.3"))
        message = "made for TensorRT 10.3 .JetPack 6.1 and 6.2., and tensorrt 10.13.2.6 is installed"
        with pytest.raises(SessionError, match=message):
            TensorRtBackend(job).check()
        with pytest.raises(SessionError, match=message):
            TensorRtBackend(job).write(tmp_path, lambda *_: None)

    def test_without_a_gpu_nothing_is_built(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "10.3.0", gpu=False)
        with pytest.raises(SessionError, match="builds on the GPU that will run the engine, and there is none here"):
            export_target(bundle, target=recipe(tmp_path, "10.3"), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_without_tensorrt_the_cure_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "10.3.0")
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(
            MissingPackageError, match=r"tensorrt is not installed\. Install it with: pip install tensorrt-cu12"
        ):
            export_target(bundle, target=recipe(tmp_path, "10.3"), out=tmp_path / "out")

    def test_a_bundle_runs_on_its_engines(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        """Batches larger than the engine's, and windows shorter than its own, are the network's business."""
        machine = Machine(monkeypatch, "8.6.2")
        export_target(bundle, target=recipe(tmp_path, "8.6"), out=bundle.path / "engines")
        frames = tiny_frames(10)
        with (
            Network.open(bundle) as original,
            Network.open(bundle, provider="tensorrt", variant="fp32") as network,
        ):
            assert network.info.provider == "tensorrt"
            features = network.encode(frames)
            np.testing.assert_allclose(features, original.encode(frames), atol=1e-6)
            windows = np.stack([features[start : start + WINDOW] for start in range(6)])
            length = np.full(6, WINDOW)
            np.testing.assert_allclose(network.logits(windows, length), original.logits(windows, length), atol=1e-5)
            short = np.repeat(features[:1, None], WINDOW, axis=1)
            logits, weights = network.logits_with_attention(features[:1, None], np.array([1]))
            np.testing.assert_allclose(logits, original.logits(short, np.array([1])), atol=1e-5)
            assert weights.shape == (1, 1)
            assert weights[0, 0] == pytest.approx(1)
        assert machine.cuda.left_behind() == {}


class TestAheadOfTime:
    def test_for_gpus_that_are_not_here(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle) -> None:
        Machine(monkeypatch, "1.7.1.116", package="tensorrt_rtx", gpu=False)
        target = recipe(tmp_path, "rtx", compute_capabilities=[80, 89])
        report = export_target(bundle, target=target, out=tmp_path / "out")
        assert (report.parity, report.not_run) == (None, "no CUDA GPU here")
        engine = read_engine(next((tmp_path / "out").glob("*.engine")))
        assert "-sm80-89-tensorrt-rtx-1.7.1.116-fp32" in engine.path.name
        assert (engine.sidecar.gpu, engine.sidecar.compute_capabilities) == (None, (80, 89))
        assert (engine.sidecar.layers, engine.sidecar.check) == (None, "not run: no CUDA GPU here")

    def test_and_runs_where_one_of_them_is(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "1.7.1.116", package="tensorrt_rtx")
        target = recipe(tmp_path, "rtx", compute_capabilities=[80, 86])
        report = export_target(bundle, target=target, out=tmp_path / "out")
        assert report.parity is not None
        with Network.open(bundle, provider="rtx", engines=tmp_path / "out") as network:
            assert network.info.provider_version.startswith("tensorrt_rtx 1.7.1.116")
        kept = next((tmp_path / "out").glob("*.runtime-cache"))
        assert kept.read_bytes().startswith(b"kernels+")

    def test_a_gpu_that_is_none_of_them_runs_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "1.7.1.116", package="tensorrt_rtx")
        target = recipe(tmp_path, "rtx", compute_capabilities=[80, 89])
        assert "is none of these" in export_target(bundle, target=target, out=tmp_path / "out").not_run
        with pytest.raises(
            SessionError, match=r"stale or foreign: it is for SM80, SM89, and Fake GPU \(SM86\) is here"
        ):
            Network.open(bundle, provider="rtx", engines=tmp_path / "out")

    def test_what_would_be_refused_is_planned_so(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
    ) -> None:
        Machine(monkeypatch, "1.7.1.116", package="tensorrt_rtx", gpu=False)
        job = target_job(bundle, target=recipe(tmp_path, "rtx", compute_capabilities=[75, 80]))
        backend = TensorRtBackend(job)
        assert [file.part for file in backend.planned()] == ["encoder", "head"]
        assert backend.planned()[0].remark == "SM75, SM80"
        message = "tensorrt_rtx 1.7.1.116 multiplies no FP32 matrices on SM75; take an FP16 precision"
        with pytest.raises(InputError, match=message):
            backend.check()
        with pytest.raises(InputError, match="SM75"):
            backend.write(tmp_path, lambda *_: None)


class TestStaleEngines:
    @pytest.fixture
    def folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle) -> Path:
        machine = Machine(monkeypatch, "10.3.0")
        self.machine, self.patch = machine, monkeypatch
        TensorRtBackend(target_job(bundle, target=recipe(tmp_path, "10.3"))).build_missing(
            tmp_path / "engines", _silent
        )
        return tmp_path / "engines"

    def test_those_that_fit_are_not_built_again(self, folder: Path, tmp_path: Path, bundle: Bundle) -> None:
        count = len(self.machine.module.built)
        TensorRtBackend(target_job(bundle, target=recipe(tmp_path, "10.3"))).build_missing(folder, _silent)
        assert len(self.machine.module.built) == count

    def test_an_upgrade_names_them_and_loads_none(self, folder: Path, bundle: Bundle) -> None:
        fake_tensorrt.install(self.patch, "10.4.0", self.machine.cuda)
        message = (
            "fp32.engine is stale or foreign: it was built with tensorrt 10.3.0, and 10.4.0 is installed.*--rebuild"
        )
        with pytest.raises(SessionError, match=message):
            Network.open(bundle, provider="tensorrt", engines=folder)
        assert self.machine.cuda.left_behind() == {}

    @pytest.mark.parametrize("damage", ["plan", "sidecar", "no sidecar"])
    def test_what_no_longer_loads_is_built_again(
        self, folder: Path, tmp_path: Path, bundle: Bundle, damage: str
    ) -> None:
        path = sorted(folder.glob("*.engine"))[0]
        place = path.with_name(f"{path.name}.json")
        if damage == "plan":
            path.write_bytes(path.read_bytes() + b"!")
        elif damage == "sidecar":
            place.write_text('{"schema": 7}')
        else:
            place.unlink()
        with pytest.raises(SessionError):
            Network.open(bundle, provider="tensorrt", engines=folder)
        TensorRtBackend(target_job(bundle, target=recipe(tmp_path, "10.3"))).build_missing(folder, _silent)
        Network.open(bundle, provider="tensorrt", engines=folder).close()
        assert self.machine.cuda.left_behind() == {}

    def test_engines_of_ones_own_making_stay(self, folder: Path, tmp_path: Path, bundle: Bundle) -> None:
        """Of other shapes than the target's, or of another precision, and no twin beside them."""
        count, names = len(self.machine.module.built), sorted(folder.iterdir())
        for changes in ({"precision": "fp16"}, {"workspace_mib": 64}):
            job = target_job(bundle, target=recipe(tmp_path, "10.3", **changes), settings=["shapes.frames.max=2"])
            engines = TensorRtBackend(job).build_missing(folder, _silent)
            assert [engine.sidecar.precision for engine in engines] == ["fp32", "fp32"]
        assert (len(self.machine.module.built), sorted(folder.iterdir())) == (count, names)

    def test_the_command_leaves_what_runs(self, folder: Path, bundle: Bundle) -> None:
        before = {path.name: sha256_file(path) for path in folder.iterdir()}
        rebuild_engines(bundle, folder, variant="auto", provider="tensorrt", progress=_silent)
        assert {path.name: sha256_file(path) for path in folder.iterdir()} == before


def _silent(_text: str, _done: int, _total: int) -> None:
    pass
