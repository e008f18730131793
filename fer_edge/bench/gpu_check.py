"""Every way that fer-edge has onto a CUDA GPU, tried on the one at hand: does it run, does it agree, how fast is it?

A path that cannot be had here says why and fails nothing; one that runs and is wrong, or breaks, fails the check.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fer_edge.bench.latency import Probe, measure_interleaved, summarise
from fer_edge.core.bundle import Bundle, timestamp
from fer_edge.core.errors import FerEdgeError, MissingPackageError, SessionError, require
from fer_edge.core.json import encode
from fer_edge.core.machine import GpuReport, MachineReport, machine_report
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.core.types import Float32, Progress
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.runtime.device_session import DeviceSession
from fer_edge.runtime.inference import Network, choose_variant

__all__ = ["GpuCheckOptions", "GpuCheckReport", "PathResult", "check_gpu"]

Outcome = Literal["ran", "failed", "not available"]

_SCHEMA: Final = 1
_TOLERANCES: Final[Mapping[str, float]] = {"fp32": 0.01, "fp16": 0.05, "int8": 0.25, "int8-fp16": 0.25}
"""Largest difference of a logit to ONNX Runtime on the CPU, by what a path computes in."""
_LEAK_LIMIT_BYTES: Final = 8 << 20


class _NotAvailableError(Exception):
    """This machine does not have what a path needs."""


@dataclass(frozen=True, kw_only=True)
class PathResult:
    """One path.

    Attributes:
        name: ``"torch"``, ``"cuda"``, ``"ort-tensorrt"``, ``"tensorrt"``, ``"rtx"`` or ``"kernel"``.
        outcome: what became of it.
        detail: what ran, or why it did not, or what is wrong.
        measures: what was measured.
    """

    name: str
    outcome: Outcome
    detail: str
    measures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GpuCheckOptions:
    """How much is done.

    Attributes:
        runs: timed runs of every path.
        cycles: times that a session is opened, run and closed to see what it leaves behind.
        threads: threads that run one session at once.
    """

    runs: int = 500
    cycles: int = 1000
    threads: int = 4


@dataclass(frozen=True, kw_only=True)
class GpuCheckReport:
    """All that was tried."""

    machine: MachineReport
    bundle: str
    bundle_sha256: str
    at: str
    command: str | None
    paths: tuple[PathResult, ...]
    schema: int = _SCHEMA

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the paths that failed."""
        return tuple(path.name for path in self.paths if path.outcome == "failed")

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dict(encode(self))


def check_gpu(
    bundle: Bundle,
    *,
    options: GpuCheckOptions | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> GpuCheckReport:
    """Try every path on the first CUDA GPU.

    Args:
        bundle: what runs on the paths that run graphs.
        options: how much is done.
        command: recorded in the report.
        progress: told which path is being tried.

    Raises:
        SessionError: there is no CUDA GPU here.
    """
    machine = machine_report()
    if not machine.gpus:
        raise SessionError(
            "there is no CUDA GPU here, or its driver (libcuda) cannot be loaded: nothing to check. "
            "`fer-edge doctor` shows what this machine has"
        )
    checker = _Checker(bundle, machine.gpus[0], options or GpuCheckOptions())
    say = progress or (lambda _text, _done, _total: None)
    results = []
    for number, (name, attempt) in enumerate(checker.paths.items()):
        say(f"trying {name}", number, len(checker.paths))
        results.append(_tried(name, attempt))
    return GpuCheckReport(
        machine=machine,
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        at=timestamp(),
        command=command,
        paths=tuple(results),
    )


def _tried(name: str, attempt: Callable[[], tuple[str, dict[str, Any]]]) -> PathResult:
    started = time.perf_counter()
    try:
        detail, measures = attempt()
    except (_NotAvailableError, MissingPackageError) as error:
        return PathResult(name=name, outcome="not available", detail=str(error))
    except Exception as error:  # a path that breaks is a finding, whatever it breaks with
        said = str(error) if isinstance(error, FerEdgeError) else repr(error)
        return PathResult(name=name, outcome="failed", detail=" ".join(said.split()))
    measures["seconds"] = round(time.perf_counter() - started, 1)
    return PathResult(name=name, outcome="ran", detail=detail, measures=measures)


class _Checker:
    """The paths, with what they share: a bundle, its frames, and what ONNX Runtime makes of them on the CPU."""

    def __init__(self, bundle: Bundle, gpu: GpuReport, options: GpuCheckOptions) -> None:
        self._bundle, self._gpu, self._options = bundle, gpu, options
        window = bundle.manifest.sequence.window
        self._frames = prepare_stills(synthetic_stills(2 * window, seed=0)[0], bundle.manifest.preprocess)
        self._expected: dict[str, Float32] = {}
        self.paths: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
            "torch": self._torch,
            "cuda": lambda: self._graph_provider("cuda"),
            "ort-tensorrt": lambda: self._graph_provider("ort-tensorrt"),
            "tensorrt": lambda: self._engine_provider("tensorrt"),
            "rtx": self._rtx,
            "kernel": self._kernel,
        }

    def _torch(self) -> tuple[str, dict[str, Any]]:
        torch = require("torch", needed_by="the path 'torch'", extra="train")
        from fer_edge.model.cuda_check import cuda_difference, cuda_fault

        if fault := cuda_fault():
            raise _NotAvailableError(fault)
        difference = cuda_difference()
        _require(difference, _TOLERANCES["fp32"])
        return f"torch {torch.__version__}, FP32", {"max_abs_logit_diff": difference}

    def _graph_provider(self, provider: str) -> tuple[str, dict[str, Any]]:
        onnxruntime = require("onnxruntime", needed_by=f"the path {provider!r}", extra="cuda")
        wanted = {"cuda": "CUDAExecutionProvider", "ort-tensorrt": "TensorrtExecutionProvider"}[provider]
        if wanted not in onnxruntime.get_available_providers():
            raise _NotAvailableError(
                f"this onnxruntime {onnxruntime.__version__} has no {wanted}; get it with pip install 'fer-edge[cuda]'"
            )
        return self._network(provider, engines=None, precision="int8" if provider == "ort-tensorrt" else "fp32")

    def _rtx(self) -> tuple[str, dict[str, Any]]:
        supported = FLAVOURS["rtx"].compute_capabilities
        if self._gpu.sm not in supported:
            listed = ", ".join(f"SM{each}" for each in supported)
            raise _NotAvailableError(f"TensorRT-RTX supports {listed}; {self._gpu.name} is SM{self._gpu.sm}")
        return self._engine_provider("rtx")

    def _engine_provider(self, provider: str) -> tuple[str, dict[str, Any]]:
        from fer_edge.export.tensorrt_backend import rebuild_engines

        with tempfile.TemporaryDirectory(prefix="fer-edge-gpu-check-") as folder:
            place = Path(folder)
            engines = rebuild_engines(
                self._bundle, place, variant="auto", provider=provider, progress=lambda _text, _done, _total: None
            )
            said = engines[0].sidecar
            detail, measures = self._network(provider, engines=place, precision=said.precision)
            measures["build_seconds"] = {engine.sidecar.part: engine.sidecar.built["seconds"] for engine in engines}
            measures["layers"] = {
                engine.sidecar.part: None if engine.sidecar.layers is None else len(engine.sidecar.layers)
                for engine in engines
            }
            measures["precision"] = said.precision
            return detail, measures

    def _network(self, provider: str, *, engines: Path | None, precision: str) -> tuple[str, dict[str, Any]]:
        variant = choose_variant(self._bundle.manifest, variant="auto", provider=provider)
        if self._bundle.variant(variant).precision == "fp32" and precision == "int8":
            precision = "fp32"
        with Network.open(self._bundle, variant=variant, provider=provider, engines=engines) as network:
            logits = self._logits(network)
            expected = self._on_cpu(variant)
            difference = float(np.abs(logits - expected).max())
            measures: dict[str, Any] = {
                "variant": variant,
                "max_abs_logit_diff": difference,
                "label_agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
                "latency_ms": self._latencies(network),
            }
            for part, session in (("encoder", network.encoder), ("head", network.head)):
                if isinstance(session, DeviceSession):
                    measures.setdefault("cuda_graph", {})[part] = session.cuda_graph
            _require(difference, _TOLERANCES[precision])
            detail = f"{network.info.provider_version}, variant {variant}"
        if engines is not None:
            measures["left_bytes"] = self._cycles(
                lambda: Network.open(self._bundle, variant=variant, provider=provider, engines=engines)
            )
        return detail, measures

    def _on_cpu(self, variant: str) -> Float32:
        if variant not in self._expected:
            with Network.open(self._bundle, variant=variant) as network:
                self._expected[variant] = self._logits(network)
        return self._expected[variant]

    def _logits(self, network: Network) -> Float32:
        window = network.window
        features = network.encode(self._frames)
        windows = np.stack([features[start : start + window] for start in range(len(features) - window + 1)])
        return network.logits(windows, np.full(len(windows), window, np.int64))

    def _latencies(self, network: Network) -> dict[str, Any]:
        face = self._frames[:1]
        window = np.repeat(network.encode(face)[:, None], network.window, axis=1)
        length = np.full(1, network.window, np.int64)
        stages: dict[str, Callable[[], object]] = {
            "encoder": lambda: network.encode(face),
            "head": lambda: network.logits(window, length),
        }
        return self._timed(stages, t=network.window)

    def _timed(self, stages: Mapping[str, Callable[[], object]], *, t: int | None) -> dict[str, Any]:
        probe = Probe(name="path", stages=stages, per_round=1)
        samples = measure_interleaved([probe], rounds=self._options.runs, warm_up=50)["path"]
        return {
            name: summarise(samples.stages[name], batch=1, t=t if name != "encoder" else None, threads=1).to_json()
            for name in stages
        }

    def _kernel(self) -> tuple[str, dict[str, Any]]:
        """Buffers, streams, CUDA graphs, threads and cycles, with a kernel where an engine would be."""
        from fer_edge.bench.kernel_engine import open_kernel_session

        measures: dict[str, Any] = {}
        detail = ""
        for kind, mapped in (("copied", False), ("mapped", True)):
            with open_kernel_session(contexts=self._options.threads, mapped=mapped) as session:
                detail, measures[kind] = session.provider_version, self._kernel_measures(session)
        measures["left_bytes"] = self._cycles(open_kernel_session)
        return detail, measures

    def _kernel_measures(self, session: DeviceSession) -> dict[str, Any]:
        def right(seed: int) -> bool:
            x = np.random.default_rng(seed).normal(size=(1 + seed % 8, 1024)).astype(np.float32)
            return bool(np.array_equal(session.run({"x": x})["y"], 2 * x + 1))

        if not all([right(0) for _ in range(10)]):
            raise SessionError("the kernel's results are wrong")
        if session.cuda_graph != "captured":
            raise SessionError(f"no CUDA graph was captured: {session.cuda_graph}")
        with ThreadPoolExecutor(self._options.threads) as pool:
            if not all(pool.map(right, range(200))):
                raise SessionError(f"the kernel's results are wrong from {self._options.threads} threads at once")
        x = np.ones((1, 1024), np.float32)
        timed = self._timed({"kernel": lambda: session.run({"x": x})}, t=None)
        return {"cuda_graph": session.cuda_graph, "latency_ms": timed["kernel"]}

    def _cycles(self, opener: Callable[[], Any]) -> int:
        """Open and close again and again; gives the device memory that this left allocated.

        Raises:
            SessionError: more than another process's ups and downs would explain.
        """
        from fer_edge.runtime.device_session import open_device

        device = open_device()
        try:
            before = 0
            for turn in range(self._options.cycles):
                with opener() as opened:
                    if isinstance(opened, DeviceSession):
                        opened.run({"x": np.ones((1, 1024), np.float32)})
                if turn == 0:  # what the first one loads (modules, the library's own pools) stays for the process
                    with device.current():
                        before = device.free_memory_bytes()
            with device.current():
                left = before - device.free_memory_bytes()
        finally:
            device.close()
        if left > _LEAK_LIMIT_BYTES:
            raise SessionError(f"{self._options.cycles} sessions left {left} bytes of the GPU's memory allocated")
        return left


def _require(difference: float, tolerance: float) -> None:
    if not difference <= tolerance:
        raise SessionError(f"logits differ from the CPU's by up to {difference:.3g}, more than {tolerance:g}")
