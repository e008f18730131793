"""The machine: processor, memory, GPU, system and package versions, read without importing the packages."""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fer_edge.core.json import encode

__all__ = [
    "GpuReport",
    "MachineReport",
    "machine_report",
    "package_version",
    "repository_commit",
    "usable_cpus",
]

_PACKAGES: Final = (
    "fer-edge", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino",
    "ai-edge-litert", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-python", "torch", "torch-pruning", "nncf", "onnx",
)  # fmt: skip

# Extensions that decide the speed of convolutions and INT8, by Linux's names.
_CPU_FEATURES: Final = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

# Jetson Linux (L4T) release -> JetPack; where several share a release, both are named.
_JETPACKS: Final[Mapping[str, str]] = {
    "35.1": "5.0.2", "35.2": "5.1", "35.3": "5.1.1", "35.4": "5.1.2", "35.5": "5.1.3", "35.6": "5.1.4 or later",
    "36.2": "6.0", "36.3": "6.0", "36.4": "6.1 or 6.2", "38.2": "7.0", "38.4": "7.1",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GpuReport:
    """One CUDA device.

    Attributes:
        name: the driver's name for it.
        compute_capability: ``"8.7"``.
        memory_bytes: total memory.
        cuda_driver: the newest CUDA version that the driver supports, ``"12.6"``.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    cuda_driver: str

    @property
    def sm(self) -> int:
        """The compute capability as one number: 87 for 8.7."""
        major, _, minor = self.compute_capability.partition(".")
        return 10 * int(major) + int(minor)


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """The machine that a measurement was taken on.

    Attributes:
        cpu: the processor's (on a Jetson the board's) name.
        cores: logical CPUs that this process may use (`usable_cpus`).
        cpu_features: its vector and matrix extensions, by Linux's names.
        memory_bytes: main memory; None if unknown.
        gpus: CUDA devices; empty without a driver.
        driver: the NVIDIA kernel driver's version.
        jetpack: JetPack's version with the Jetson Linux release, on a Jetson.
        os: name, release and machine.
        python: version.
        packages: version by distribution, of those installed.
        load_at_start: the one-minute load average; None if unknown.
    """

    cpu: str
    cores: int
    cpu_features: tuple[str, ...]
    memory_bytes: int | None
    gpus: tuple[GpuReport, ...]
    driver: str | None
    jetpack: str | None
    os: str
    python: str
    packages: Mapping[str, str]
    load_at_start: float | None

    @property
    def gpu(self) -> str | None:
        """The name of the first CUDA device."""
        return self.gpus[0].name if self.gpus else None

    def to_json(self) -> dict[str, Any]:
        """Return every attribute, and `gpu`, as a JSON object."""
        return {**encode(self), "gpu": self.gpu}


def machine_report() -> MachineReport:
    """Inspect this machine without importing the packages or opening a CUDA context."""
    cpuinfo = _read("/proc/cpuinfo")
    return MachineReport(
        cpu=_cpu_name(cpuinfo),
        cores=usable_cpus(),
        cpu_features=_cpu_features(cpuinfo),
        memory_bytes=_memory_bytes(),
        gpus=_cuda_devices(),
        driver=_read("/sys/module/nvidia/version") or None,
        jetpack=_jetpack(_read("/etc/nv_tegra_release")),
        os=f"{_os_name()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := package_version(name))},
        load_at_start=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def usable_cpus() -> int:
    """Return how many logical CPUs this process may use: its affinity mask, limited by its cgroup's CPU quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _cgroup_quotas())]))


def _cgroup_quotas() -> Iterator[float]:
    """Yield the CPUs that each enclosing cgroup allows: v2 as ``quota period``, v1 in two files."""
    stated = [line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
    own = {names: path for _, names, path in (entry for entry in stated if len(entry) == 3)}
    v1 = next((path for names, path in own.items() if "cpu" in names.split(",")), "/")
    for root, path in (("/sys/fs/cgroup", own.get("", "/")), ("/sys/fs/cgroup/cpu", v1)):
        for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
            place = f"{root}/{folder.relative_to('/')}"
            limit = _read(f"{place}/cpu.max") or " ".join(
                _read(f"{place}/cpu.{name}") for name in ("cfs_quota_us", "cfs_period_us")
            )
            numbers = [int(number) for number in limit.split() if number.isdecimal()]
            if len(numbers) == 2 and min(numbers) > 0:
                yield numbers[0] / numbers[1]


def package_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace").strip(" \n\0")
    except OSError:
        return ""


def _cpu_name(cpuinfo: str) -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return (named and named[1]) or _read("/proc/device-tree/model") or platform.processor() or platform.machine()


def _cpu_features(cpuinfo: str) -> tuple[str, ...]:
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    has = set(listed[1].split()) if listed else set()
    return tuple(feature for feature in _CPU_FEATURES if feature in has)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _jetpack(tegra_release: str) -> str | None:
    """Return JetPack's version from /etc/nv_tegra_release: ``# R36 (release), REVISION: 4.3, ...``."""
    stated = re.search(r"R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?", tegra_release)
    if not stated:
        return None
    release = f"{stated[1]}.{stated[2]}"
    return f"{_JETPACKS.get(release, 'unknown')} (L4T {release}{f'.{stated[3]}' if stated[3] else ''})"


def _cuda_devices() -> tuple[GpuReport, ...]:
    """Query the CUDA driver through its C API, which desktops and Jetsons both have."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ()
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    driver.cuDriverGetVersion(ctypes.byref(version))
    served = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_cuda_device(driver, ordinal, served) for ordinal in range(count.value))


def _cuda_device(driver: Any, ordinal: int, served: str) -> GpuReport:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    return GpuReport(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        cuda_driver=served,
    )


def repository_commit(folder: Path) -> str | None:
    """Return the commit checked out at `folder`, with ``-dirty`` if files differ; None without git or a commit."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
