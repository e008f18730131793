"""Try every way of fer-edge onto a CUDA GPU: whether it runs, agrees with the CPU, and how fast it is.

A path that is not available here names the reason and fails nothing; one that runs and is wrong fails the check.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from fer_edge.bench.latency import Probe, measure_interleaved, summarise
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, MissingPackageError, SessionError, require
from fer_edge.core.json_report import JsonReport
from fer_edge.core.machine import GpuReport, MachineReport, machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.core.types import Float32, Progress
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.runtime.device_session import DeviceSession, open_device
from fer_edge.runtime.inference import Network, choose_variant

__all__ = ["GpuCheckOptions", "GpuCheckReport", "PathResult", "check_gpu"]

Outcome: TypeAlias = Literal["ran", "failed", "not available"]
_Finding: TypeAlias = tuple[str, dict[str, Any]]

_TOLERANCES: Final[Mapping[str, float]] = {"fp32": 0.01, "fp16": 0.05, "int8": 0.25, "int8-fp16": 0.25}
"""Largest difference of a logit to ONNX Runtime on the CPU, by the path's precision."""
_LEAK_LIMIT_BYTES: Final = 8 << 20


class _NotAvailableError(Exception):
    """This machine lacks what a path needs."""


@dataclass(frozen=True, kw_only=True)
class PathResult:
    """One path.

    Attributes:
        name: ``"torch"``, ``"cuda"``, ``"ort-tensorrt"``, ``"tensorrt"`` or ``"rtx"``.
        outcome: ``"ran"``, ``"failed"`` or ``"not available"``.
        detail: what ran, or the reason why it did not, or what is wrong.
        measures: differences, latencies and the like.
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
        cycles: times that an engine is opened, run and closed to find what it leaves allocated.
        threads: threads that run one network at once.
    """

    runs: int = 500
    cycles: int = 1000
    threads: int = 4


@dataclass(frozen=True, kw_only=True)
class GpuCheckReport(JsonReport):
    """Every path on one machine."""

    machine: MachineReport
    bundle: str
    bundle_sha256: str
    at: str
    command: str | None
    paths: tuple[PathResult, ...]
    schema: int = 1

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the paths that failed."""
        return tuple(path.name for path in self.paths if path.outcome == "failed")


def check_gpu(
    bundle: Bundle,
    *,
    options: GpuCheckOptions | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> GpuCheckReport:
    """Try every path on the first CUDA GPU.

    Args:
        bundle: runs on the paths that run graphs.

    Raises:
        SessionError: there is no CUDA GPU here.
    """
    machine = machine_report()
    if not machine.gpus:
        raise SessionError(
            "GPU: got none, or its driver (libcuda) cannot be loaded, expected a CUDA GPU; "
            "`fer-edge doctor` shows what this machine has"
        )
    checker = _Checker(bundle, machine.gpus[0], options or GpuCheckOptions())
    results = []
    for number, (name, attempt) in enumerate(checker.paths.items()):
        if progress is not None:
            progress(f"trying {name}", number, len(checker.paths))
        results.append(_try(name, attempt))
    return GpuCheckReport(
        machine=machine,
        bundle=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        at=timestamp(),
        command=command,
        paths=tuple(results),
    )


def _try(name: str, attempt: Callable[[], _Finding]) -> PathResult:
    started = time.perf_counter()
    try:
        detail, measures = attempt()
    except (_NotAvailableError, MissingPackageError) as error:
        return PathResult(name=name, outcome="not available", detail=str(error))
    except Exception as error:  # any error of a path is a finding
        detail = str(error) if isinstance(error, FerEdgeError) else repr(error)
        return PathResult(name=name, outcome="failed", detail=" ".join(detail.split()))
    measures["seconds"] = round(time.perf_counter() - started, 1)
    return PathResult(name=name, outcome="ran", detail=detail, measures=measures)


class _Checker:
    """The paths, with what they share: a bundle, its frames, and the CPU's logits."""

    def __init__(self, bundle: Bundle, gpu: GpuReport, options: GpuCheckOptions) -> None:
        self._bundle, self._gpu, self._options = bundle, gpu, options
        window = bundle.manifest.sequence.window
        self._frames = prepare_stills(synthetic_stills(2 * window, seed=0)[0], bundle.manifest.preprocess)
        self._expected: dict[str, Float32] = {}
        self.paths: dict[str, Callable[[], _Finding]] = {
            "torch": self._torch,
            "cuda": partial(self._graph_provider, "cuda"),
            "ort-tensorrt": partial(self._graph_provider, "ort-tensorrt"),
            "tensorrt": partial(self._engine_provider, "tensorrt"),
            "rtx": self._rtx,
        }

    def _torch(self) -> _Finding:
        torch = require("torch", needed_by="the path 'torch'", extra="train")
        from fer_edge.model.cuda_check import cuda_difference, cuda_fault

        if fault := cuda_fault():
            raise _NotAvailableError(fault)
        difference = cuda_difference()
        _expect_close(difference, _TOLERANCES["fp32"])
        return f"torch {torch.__version__}, FP32", {"max_abs_logit_diff": difference}

    def _graph_provider(self, provider: str) -> _Finding:
        onnxruntime = require("onnxruntime", needed_by=f"the path {provider!r}", extra="cuda")
        wanted = {"cuda": "CUDAExecutionProvider", "ort-tensorrt": "TensorrtExecutionProvider"}[provider]
        if wanted not in onnxruntime.get_available_providers():
            raise _NotAvailableError(
                f"this onnxruntime {onnxruntime.__version__} has no {wanted}; get it with pip install 'fer-edge[cuda]'"
            )
        return self._network(provider, engines=None, precision="int8" if provider == "ort-tensorrt" else "fp32")

    def _rtx(self) -> _Finding:
        supported = FLAVOURS["rtx"].compute_capabilities
        if self._gpu.sm not in supported:
            listed = ", ".join(f"SM{each}" for each in supported)
            raise _NotAvailableError(f"TensorRT-RTX supports {listed}; {self._gpu.name} is SM{self._gpu.sm}")
        return self._engine_provider("rtx")

    def _engine_provider(self, provider: str) -> _Finding:
        from fer_edge.export.tensorrt_backend import rebuild_engines

        with tempfile.TemporaryDirectory(prefix="fer-edge-gpu-check-") as folder:
            built = rebuild_engines(
                self._bundle,
                Path(folder),
                variant="auto",
                provider=provider,
                progress=lambda what, done, total: None,
            )
            sidecars = {engine.sidecar.part: engine.sidecar for engine in built}
            precision = built[0].sidecar.precision
            detail, measures = self._network(provider, engines=Path(folder), precision=precision)
        measures["build_seconds"] = {part: sidecar.built["seconds"] for part, sidecar in sidecars.items()}
        measures["layers"] = {
            part: None if sidecar.layers is None else len(sidecar.layers) for part, sidecar in sidecars.items()
        }
        measures["precision"] = precision
        return detail, measures

    def _network(self, provider: str, *, engines: Path | None, precision: str) -> _Finding:
        variant = choose_variant(self._bundle.manifest, variant="auto", provider=provider)
        if self._bundle.variant(variant).precision == "fp32" and precision == "int8":
            precision = "fp32"
        opener = partial(Network.open, self._bundle, variant=variant, provider=provider, engines=engines)
        with opener() as network:
            logits, expected = self._logits(network), self._on_cpu(variant)
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
            size = max(1.0, float(np.abs(expected).max()))
            _expect_close(difference / size, _TOLERANCES[precision])
            with ThreadPoolExecutor(self._options.threads) as pool:
                found = list(pool.map(lambda _: self._logits(network), range(4 * self._options.threads)))
            largest = max(float(np.abs(each - expected).max()) for each in found)
            _expect_close(largest / size, _TOLERANCES[precision])
            detail = f"{network.info.provider_version}, variant {variant}"
        if engines is not None:
            measures["left_bytes"] = self._cycle(opener)
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
        probe = Probe(name="path", stages=stages, per_round=1)
        samples = measure_interleaved([probe], rounds=self._options.runs, warm_up=50)["path"]
        frames = {"encoder": None, "head": network.window}
        return {name: summarise(samples.stages[name], batch=1, t=t, threads=1).to_json() for name, t in frames.items()}

    def _cycle(self, opener: Callable[[], Network]) -> int:
        """Open, run and close repeatedly; return the bytes of device memory that stay allocated.

        Raises:
            SessionError: more than the variation by other processes would explain.
        """
        device = open_device()
        try:
            before = 0
            for turn in range(self._options.cycles):
                with opener() as network:
                    network.encode(self._frames[:1])
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


def _expect_close(difference: float, tolerance: float) -> None:
    if not difference <= tolerance:
        raise SessionError(
            f"logits: got a difference to the CPU's of {difference:.3g} of their size, expected at most {tolerance:g}"
        )
