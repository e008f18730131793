"""Examine this machine: every engine is opened with a small graph, every package and file is looked up."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import zoo_names
from fer_edge.core.errors import FerEdgeError, require
from fer_edge.core.json import encode
from fer_edge.core.machine import MachineReport, machine_report, package_version
from fer_edge.core.telemetry import without_telemetry
from fer_edge.runtime.device_session import open_device
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.providers import IDENTITY_GRAPH, PROVIDERS, open_session
from fer_edge.runtime.tensorrt_library import load_tensorrt

__all__ = ["Check", "DoctorReport", "PackageReport", "examine"]

_OTHER_EXTRAS: Final = ("all", "dev")  # they repeat the others, or are for tests only


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was tried, whether it works here, and what was found or what to do."""

    name: str
    works: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class PackageReport:
    """A distribution, its installed version, and the extras of fer-edge that install it (none: always needed)."""

    name: str
    version: str | None
    extras: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """The machine, what was tried on it, and its packages."""

    machine: MachineReport
    checks: tuple[Check, ...]
    packages: tuple[PackageReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**encode(self), "machine": self.machine.to_json()}


def examine() -> DoctorReport:
    """Look at this machine and try every engine. A failing engine is a finding, not an error."""
    attempts: dict[str, Callable[[], str]] = {
        **{f"provider {name}": partial(_open, name) for name in PROVIDERS if name != "litert"},
        "provider litert": _litert,
        "OpenVINO devices": _openvino_devices,
        "TensorRT": lambda: load_tensorrt("tensorrt").title,
        "TensorRT-RTX": lambda: load_tensorrt("tensorrt_rtx").title,
        "CUDA device": _cuda_device,
        "face detection": _detector,
        "shipped bundles": _zoo,
        "FER_EDGE_DATA": _data,
    }
    checks = tuple(_check(name, attempt) for name, attempt in attempts.items())
    return DoctorReport(machine=machine_report(), checks=checks, packages=_packages())


def _check(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name=name, works=True, detail=attempt())
    except (FerEdgeError, OSError, RuntimeError) as error:
        return Check(name=name, works=False, detail=" ".join(str(error).split()))


def _open(provider: str) -> str:
    with open_session(IDENTITY_GRAPH, provider=provider) as session:
        return session.provider_version


def _litert() -> str:
    """Load LiteRT; unlike the others it runs no ONNX graph, only files that were made from one."""
    package = require("ai_edge_litert", needed_by="the provider 'litert'", extra="litert")
    importlib.import_module("fer_edge.runtime.litert_session")
    return f"ai-edge-litert {package.__version__}"


def _openvino_devices() -> str:
    with without_telemetry():
        require("openvino", needed_by="OpenVINO", extra="openvino")
    from fer_edge.runtime.openvino_session import openvino_core

    core = openvino_core()
    return ", ".join(f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})" for device in core.available_devices)


def _cuda_device() -> str:
    device = open_device()
    try:
        return f"{device.info.name}, SM{device.info.compute_capability}, through {device.info.package}"
    finally:
        device.close()


def _detector() -> str:
    HaarDetector()
    return "OpenCV's frontal-face cascade"


def _zoo() -> str:
    names = zoo_names()
    if not names:
        raise FerEdgeError("none are installed")
    return ", ".join(names)


def _data() -> str:
    path = os.environ.get("FER_EDGE_DATA")
    if not path:
        raise FerEdgeError("not set; accuracy is measured where it names FER2013, for example /data/fer2013.csv")
    if not Path(path).exists():
        raise FerEdgeError(f"{path} does not exist")
    return path


def _packages() -> tuple[PackageReport, ...]:
    """List base packages, then those of the extras, from the installed metadata of fer-edge."""
    try:
        requirements = importlib.metadata.requires("fer-edge") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        package, _, marker = requirement.partition(";")
        name = re.match(r"[\w.-]+", package)
        extra = re.fullmatch(r"\s*extra == ['\"]([\w-]+)['\"]", marker)
        if name and (not marker or (extra and extra[1] not in _OTHER_EXTRAS)):
            extras.setdefault(name[0], []).extend([extra[1]] if extra else [])
    return tuple(
        PackageReport(name=name, version=package_version(name), extras=tuple(each)) for name, each in extras.items()
    )
