from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import pytest

from fer_edge.core import machine
from fer_edge.core.machine import machine_report


def test_this_machine() -> None:
    report = machine_report()
    assert report.cpu
    assert 1 <= report.cores <= (os.cpu_count() or 1)
    assert report.packages["numpy"] == np.__version__
    assert "fer-edge-no-such" not in report.packages


def test_cores_are_those_of_the_process() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert machine_report().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_arm_processors_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm asimdhp asimddp\nCPU implementer\t: 0x41\n",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    }
    monkeypatch.setattr(machine, "_read", lambda path: texts.get(path, ""))
    report = machine_report()
    assert report.cpu == "NVIDIA Jetson Orin Nano Developer Kit"
    assert report.cpu_features == ("asimd", "asimdhp", "asimddp")
    assert report.jetpack == "6.1 or 6.2 (L4T 36.4.3)"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 1", "5.1.2 (L4T 35.4.1)"),
        ("# R99 (release), REVISION: 1", "unknown (L4T 99.1)"),
        ("", None),
    ],
)
def test_jetpack_from_the_jetson_linux_release(stated: str, expected: str | None) -> None:
    assert machine._jetpack(stated) == expected


class _FakeCuda:
    """The CUDA driver's C functions, as far as they are asked, for one device."""

    def __init__(self, *, status: int = 0) -> None:
        self._status = status

    def cuInit(self, flags: int) -> int:
        return self._status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12060
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Orin"
        assert size > len(name.value)
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 7 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


def test_a_cuda_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _FakeCuda())
    report = machine_report()
    assert report.gpu == "Orin"
    assert report.gpus[0].compute_capability == "8.7"
    assert report.gpus[0].memory_bytes == 7 << 30
    assert report.gpus[0].cuda_driver == "12.6"


def test_a_driver_without_devices_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: _FakeCuda(status=100))
    assert machine_report().gpus == ()
    assert machine_report().gpu is None


@pytest.mark.gpu
def test_the_real_driver_is_asked() -> None:
    import torch

    gpu = machine_report().gpus[0]
    assert gpu.name == torch.cuda.get_device_name(0)
    assert gpu.compute_capability == "{}.{}".format(*torch.cuda.get_device_capability(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/./cpu.max": "max 100000"}, 8),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/./cpu.max": "150000 100000"}, 2),
        ({"/proc/self/cgroup": "0::/pod/job", "/sys/fs/cgroup/pod/cpu.max": "50000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu/./cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/./cpu.cfs_period_us": "100000"}, 8),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/job",
                "/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/./cpu.max": "1600000 100000"}, 8),
    ],
)
def test_cpus_are_limited_by_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.usable_cpus() == expected
