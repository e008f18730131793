"""What this machine can do with fer-edge, and what it lacks: every engine is tried, not only looked for."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import zoo_names
from fer_edge.core.errors import FerEdgeError, require
from fer_edge.core.json import encode
from fer_edge.core.machine import MachineReport, machine_report, package_version
from fer_edge.core.telemetry import without_telemetry
from fer_edge.runtime.detector import HaarDetector
from fer_edge.runtime.device_session import open_device
from fer_edge.runtime.providers import IDENTITY_GRAPH, PROVIDERS, open_session
from fer_edge.runtime.tensorrt_library import load_tensorrt

__all__ = ["Check", "DoctorReport", "PackageReport", "examine"]

_SUMMING_EXTRAS: Final = ("all", "dev")  # they repeat the others, and what only tests need


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: what was tried.
        works: whether it can be used here.
        detail: what was found, or why it cannot be used and what would mend that.
    """

    name: str
    works: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class PackageReport:
    """One package that fer-edge may use.

    Attributes:
        name: the distribution.
        version: the installed version, `None` where it is not installed.
        extras: the extras of fer-edge that bring it; empty for what fer-edge always needs.
    """

    name: str
    version: str | None
    extras: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """All that `fer-edge doctor` shows."""

    machine: MachineReport
    checks: tuple[Check, ...]
    packages: tuple[PackageReport, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**encode(self), "machine": self.machine.to_json()}


def examine() -> DoctorReport:
    """Look at this machine and try every engine. A failing engine is a finding, not an error."""
    return DoctorReport(
        machine=machine_report(),
        checks=(
            *(_check(f"provider {name}", _open(name)) for name in PROVIDERS),
            _check("OpenVINO devices", _openvino_devices),
            _check("TensorRT", _tensorrt),
            _check("TensorRT-RTX", _tensorrt_rtx),
            _check("CUDA device", _cuda_device),
            _check("face detection", _detector),
            _check("shipped bundles", _zoo),
            _check("FER_EDGE_DATA", _data),
        ),
        packages=_packages(),
    )


def _check(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name=name, works=True, detail=attempt())
    except (FerEdgeError, OSError, RuntimeError) as error:
        return Check(name=name, works=False, detail=" ".join(str(error).split()))


def _open(provider: str) -> Callable[[], str]:
    def attempt() -> str:
        with open_session(IDENTITY_GRAPH, provider=provider) as session:
            return session.provider_version

    return attempt


def _openvino_devices() -> str:
    with without_telemetry():
        require("openvino", needed_by="OpenVINO", extra="openvino")
    from fer_edge.runtime.openvino_session import openvino_core

    core = openvino_core()
    return ", ".join(f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})" for device in core.available_devices)


def _tensorrt() -> str:
    return load_tensorrt("tensorrt").title


def _tensorrt_rtx() -> str:
    return load_tensorrt("tensorrt_rtx").title


def _cuda_device() -> str:
    device = open_device()
    try:
        info = device.info
        return f"{info.name}, SM{info.compute_capability}, through {info.package}"
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
    stated = os.environ.get("FER_EDGE_DATA")
    if not stated:
        raise FerEdgeError("not set; accuracy is measured where it names FER2013, for example /data/fer2013.csv")
    if not Path(stated).exists():
        raise FerEdgeError(f"names {stated}, which does not exist")
    return stated


def _packages() -> tuple[PackageReport, ...]:
    """Base packages first, then those of the extras, as the installed metadata of fer-edge lists them."""
    try:
        requirements = importlib.metadata.requires("fer-edge") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        stated, _, marker = requirement.partition(";")
        named = re.match(r"[\w.-]+", stated)
        extra = re.fullmatch(r"\s*extra == ['\"]([\w-]+)['\"]", marker)
        if not named or (marker and not extra) or (extra and extra[1] in _SUMMING_EXTRAS):
            continue
        extras.setdefault(named[0], []).extend([extra[1]] if extra else [])
    return tuple(
        PackageReport(name=name, version=package_version(name), extras=tuple(brought))
        for name, brought in extras.items()
    )
