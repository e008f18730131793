"""A CUDA kernel in place of an engine: buffers, streams, graph capture, threads and closing of `DeviceSession`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_engine import compile_kernel, open_kernel_session

from fer_edge.core.errors import MissingPackageError
from fer_edge.runtime.cuda_python_device import CudaPythonDevice


@pytest.mark.parametrize("capability", [75, 87, 90, 120])
def test_the_kernel_compiles_without_a_gpu(capability: int) -> None:
    try:
        image, version = compile_kernel(capability)
    except MissingPackageError:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    assert image.startswith(b"\x7fELF")
    assert version.startswith("nvrtc ")


@pytest.mark.gpu
class TestOnARealGpu:
    """The kernel on the GPU that runs these tests."""

    @pytest.mark.parametrize("mapped", [False, True])
    def test_the_kernel(self, mapped: bool) -> None:
        pytest.importorskip("cuda.bindings.nvrtc")
        random = np.random.default_rng(0)
        with open_kernel_session(mapped=mapped) as session:
            for rows in (1, 1, 1, 64, 64, 64, 3):
                x = random.normal(size=(rows, 1024)).astype(np.float32)
                np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x + 1)
            assert session.cuda_graph == "captured"

    def test_threads_at_once(self) -> None:
        pytest.importorskip("cuda.bindings.nvrtc")
        with open_kernel_session(contexts=4) as session, ThreadPoolExecutor(4) as pool:

            def right(seed: int) -> bool:
                x = np.random.default_rng(seed).normal(size=(1 + seed % 8, 1024)).astype(np.float32)
                return bool(np.array_equal(session.run({"x": x})["y"], 2 * x + 1))

            assert all(pool.map(right, range(200)))

    def test_a_thousand_sessions_leave_nothing(self) -> None:
        pytest.importorskip("cuda.bindings.nvrtc")
        device = CudaPythonDevice()
        x = np.ones((1, 1024), np.float32)

        def free() -> int:
            with device.current():
                return device.free_memory_bytes()

        with open_kernel_session() as session:
            session.run({"x": x})
        before = free()
        for _ in range(1000):
            with open_kernel_session() as session:
                session.run({"x": x})
        assert before - free() < 8 << 20
        device.close()
