from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fake_cuda
import numpy as np
import pytest
from fake_cuda import FakeCuda

from fer_edge.core.errors import InputError, MissingPackageError, SessionError
from fer_edge.runtime.cuda_device import Device, TensorBuffer
from fer_edge.runtime.device_session import BACKENDS, DeviceSession, Shape, open_device
from fer_edge.runtime.session import TensorSpec


class Doubler:
    """An engine on the fake: y = 2 x on float32 (N, 4), 1 <= N <= 8; its int32 `n` is int64 outside."""

    provider, provider_version = "doubler", "doubler 1.0"

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        float32 = np.dtype(np.float32)
        self.inputs = (
            TensorSpec(name="x", dtype=float32, shape=(None, 4), limits=((1, 8), (4, 4))),
            TensorSpec(name="n", dtype=np.dtype(np.int64), shape=(None,), limits=((1, 8),)),
        )
        self.outputs = (TensorSpec(name="y", dtype=float32, shape=(None, 4)),)
        self.device_dtypes: Mapping[str, np.dtype[Any]] = {"x": float32, "n": np.dtype(np.int32), "y": float32}
        self.fault: str | None = None
        self.during: Callable[[], None] = lambda: None
        self.fail_next = False

    def create_program(self) -> Program:
        self.cuda.need_context()
        self.cuda.contexts += 1
        return Program(self)

    def close(self) -> None:
        assert self.cuda.contexts == 0, "programs are closed before their engine"
        self.cuda.need_context()


class Program:
    def __init__(self, engine: Doubler) -> None:
        self.engine, self.pointers = engine, {}

    def prepare(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        self.rows = shapes["x"][0]
        return {"y": shapes["x"]}

    def bind(self, name: str, pointer: int) -> None:
        self.pointers[name] = pointer

    def enqueue(self, stream: int) -> None:
        if self.engine.fail_next:
            self.engine.fail_next = False
            raise SessionError("the kernel failed")
        rows, pointers, cuda = self.rows, dict(self.pointers), self.engine.cuda
        for name, size in (("x", 16), ("n", 4), ("y", 16)):
            cuda.check(pointers[name], size * rows)

        def run() -> None:
            x = np.ctypeslib.as_array((ctypes.c_float * (4 * rows)).from_address(pointers["x"]))
            n = np.ctypeslib.as_array((ctypes.c_int32 * rows).from_address(pointers["n"]))
            y = np.ctypeslib.as_array((ctypes.c_float * (4 * rows)).from_address(pointers["y"]))
            y[:] = 2 * x + np.repeat(n, 4)

        self.engine.during()
        cuda.put(stream, run)

    def capture_fault(self, stream: int) -> str | None:
        return self.engine.fault

    def close(self) -> None:
        if self.pointers is not None:
            self.pointers = None
            self.engine.cuda.contexts -= 1


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> str:
    fake_cuda.install(monkeypatch, cuda, backend=request.param)
    return request.param


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    fake_cuda.install(monkeypatch, cuda)


def feeds(rows: int = 3, *, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"x": random.normal(size=(rows, 4)).astype(np.float32), "n": np.arange(1, rows + 1)}


def expected(given: Mapping[str, np.ndarray]) -> np.ndarray:
    return (2 * given["x"] + given["n"][:, None]).astype(np.float32)


class TestDevice:
    def test_says_what_it_is(self, backend: str, cuda: FakeCuda) -> None:
        device = open_device()
        info = device.info
        assert (info.name, info.compute_capability, info.integrated) == ("Fake GPU", 86, False)
        assert info.package.split()[0].removesuffix("-python") in backend.replace("cuda-python", "cuda cuda-bindings")

    def test_the_context_is_current_in_the_block_alone(self, backend: str, cuda: FakeCuda) -> None:
        device = open_device()
        cuda.stack.append("somebody else's")
        with device.current():
            assert cuda.stack == ["somebody else's", "primary"]
        assert cuda.stack == ["somebody else's"]
        with pytest.raises(SessionError), device.current():
            device.allocate(1 << 31)
        assert cuda.stack == ["somebody else's"]

    def test_errors_are_the_drivers_words(self, backend: str, cuda: FakeCuda) -> None:
        device = open_device()
        with pytest.raises(SessionError, match="INVALID_CONTEXT"):
            device.allocate(16)  # outside `current`
        with device.current(), pytest.raises(SessionError, match="OUT_OF_MEMORY"):
            device.allocate(1 << 31)

    def test_no_device_of_that_number(self, backend: str) -> None:
        with pytest.raises(SessionError, match="device 3 is not there; this machine has 1"):
            open_device(3)

    def test_a_closed_device_says_so(self, backend: str) -> None:
        device = open_device()
        device.close()
        device.close()
        with pytest.raises(SessionError, match="closed"), device.current():
            pass

    @pytest.mark.parametrize("mapped", [False, True])
    def test_a_buffer_is_given_back_whole(self, backend: str, cuda: FakeCuda, mapped: bool) -> None:
        device = open_device()
        with device.current():
            buffer = TensorBuffer(device, size_bytes=64, mapped=mapped)
            assert bool(cuda.device) is not mapped
            buffer.free(device)
        assert not cuda.host
        assert not cuda.device

    def test_page_locked_memory_goes_back_where_the_device_has_none_left(self, backend: str, cuda: FakeCuda) -> None:
        cuda.memory_limit_bytes = 10
        device = open_device()
        with device.current(), pytest.raises(SessionError, match="OUT_OF_MEMORY"):
            TensorBuffer(device, size_bytes=64, mapped=False)
        assert not cuda.host

    def test_without_either_package_the_cure_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("cuda", "pycuda"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            MissingPackageError, match=r"pip install 'fer-edge\[tensorrt\]'.*pip install 'fer-edge\[pycuda\]'"
        ):
            open_device()

    def test_a_driver_that_is_not_there_is_named(self, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
        fake_cuda.install(monkeypatch, cuda)

        def missing(_flags: int) -> None:
            raise RuntimeError('"cuda" can only be found via system search')

        monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuInit", missing)
        with pytest.raises(SessionError, match="check the NVIDIA driver"):
            open_device()


class TestRuns:
    @pytest.mark.parametrize("mapped", [False, True])
    def test_computes_again_and_again(self, backend: str, cuda: FakeCuda, mapped: bool) -> None:
        engine = Doubler(cuda)
        with DeviceSession(open_device(), engine, mapped=mapped) as session:
            for turn in range(5):
                given = feeds(seed=turn)
                np.testing.assert_array_equal(session.run(given)["y"], expected(given))
            assert (cuda.copies == 0) is mapped

    def test_shapes_may_change_every_run(self, backend: str, cuda: FakeCuda) -> None:
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            for rows in (1, 8, 8, 8, 2, 2, 2, 8, 1):
                given = feeds(rows, seed=rows)
                np.testing.assert_array_equal(session.run(given)["y"], expected(given))

    def test_outputs_are_the_callers_own(self, backend: str, cuda: FakeCuda) -> None:
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            first = session.run(feeds(seed=1))["y"]
            kept = first.copy()
            session.run(feeds(seed=2))
            np.testing.assert_array_equal(first, kept)

    @pytest.mark.usefixtures("bindings")
    def test_memory_is_shared_where_the_gpu_is_integrated(
        self, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cuda.integrated = True
        fake_cuda.install(monkeypatch, cuda)
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            session.run(feeds())
            assert session.mapped
            assert not cuda.device
            assert cuda.copies == 0

    @pytest.mark.usefixtures("bindings")
    def test_feeds_are_checked_first(self, cuda: FakeCuda) -> None:
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            with pytest.raises(
                InputError, match=r"got shape \(9, 4\), but the engine was built for x float32 \(1 to 8, 4\)"
            ):
                session.run({**feeds(9), "n": np.arange(8)})
            with pytest.raises(InputError, match="beyond int32"):
                session.run({**feeds(1), "n": np.array([1 << 40])})
            given = feeds()
            np.testing.assert_array_equal(session.run(given)["y"], expected(given))

    @pytest.mark.usefixtures("bindings")
    def test_after_a_failed_run_the_next_one_has_a_context_of_its_own(self, cuda: FakeCuda) -> None:
        engine = Doubler(cuda)
        with DeviceSession(open_device(), engine, contexts=1, cuda_graphs=False) as session:
            session.run(feeds())
            engine.fail_next = True
            with pytest.raises(SessionError, match="kernel failed"):
                session.run(feeds())
            assert cuda.contexts == 0
            given = feeds(seed=5)
            np.testing.assert_array_equal(session.run(given)["y"], expected(given))


class TestCudaGraph:
    @pytest.mark.usefixtures("bindings")
    def test_the_second_run_of_a_shape_captures_and_later_ones_launch(self, cuda: FakeCuda) -> None:
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            session.run(feeds())
            assert (session.cuda_graph, cuda.launches) == ("not captured yet", 0)
            for turn in range(3):
                given = feeds(seed=turn)
                np.testing.assert_array_equal(session.run(given)["y"], expected(given))
            assert (session.cuda_graph, cuda.launches) == ("captured", 3)
            assert not cuda.graphs
            assert len(cuda.executables) == 1
            session.run(feeds(5))
            assert not cuda.executables, "a graph is of one shape"

    @pytest.mark.usefixtures("bindings")
    def test_a_capture_that_fails_falls_back_and_says_so(self, cuda: FakeCuda) -> None:
        cuda.fail_capture = True
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            for turn in range(4):
                given = feeds(seed=turn)
                np.testing.assert_array_equal(session.run(given)["y"], expected(given))
            assert (
                session.cuda_graph == "off: CUDA: cuStreamEndCapture failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
            )
            assert cuda.launches == 0

    @pytest.mark.usefixtures("bindings")
    def test_what_cannot_be_captured_ends_the_capture(self, cuda: FakeCuda) -> None:
        """An engine that allocates while it is captured: the stream must come out of capture mode again."""
        engine = Doubler(cuda)
        device = open_device()
        with DeviceSession(device, engine) as session:
            session.run(feeds())
            engine.during = lambda: device.free(device.allocate(16))
            given = feeds(seed=3)
            np.testing.assert_array_equal(session.run(given)["y"], expected(given))
            assert "CAPTURE_UNSUPPORTED" in session.cuda_graph
            assert all(stream.captured is None for stream in cuda.streams.values())

    @pytest.mark.usefixtures("bindings")
    def test_an_engine_may_know_beforehand(self, cuda: FakeCuda) -> None:
        engine = Doubler(cuda)
        engine.fault = "not at this shape"
        with DeviceSession(open_device(), engine) as session:
            for _ in range(3):
                session.run(feeds())
            assert session.cuda_graph == "off: not at this shape"

    def test_pycuda_has_none(self, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
        fake_cuda.install(monkeypatch, cuda, backend="pycuda")
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            for _ in range(3):
                session.run(feeds())
            assert session.cuda_graph.startswith("off: PyCUDA captures no CUDA graphs")

    @pytest.mark.usefixtures("bindings")
    def test_can_be_turned_off(self, cuda: FakeCuda) -> None:
        with DeviceSession(open_device(), Doubler(cuda), cuda_graphs=False) as session:
            for _ in range(3):
                session.run(feeds())
            assert (session.cuda_graph, cuda.launches) == ("off: as asked", 0)


class TestThreads:
    def test_each_has_a_context_of_its_own(self, backend: str, cuda: FakeCuda) -> None:
        inside, most = 0, 0
        lock = threading.Lock()
        engine = Doubler(cuda)

        def during() -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= 1

        engine.during = during

        def work(seed: int) -> bool:
            given = feeds(1 + seed % 8, seed=seed)
            return bool((session.run(given)["y"] == expected(given)).all())

        with DeviceSession(open_device(), engine, contexts=2, cuda_graphs=False) as session:
            with ThreadPoolExecutor(6) as pool:
                assert all(pool.map(work, range(60)))
            assert cuda.contexts == 2
            assert most == 2
        assert cuda.contexts == 0

    @pytest.mark.usefixtures("bindings")
    def test_closing_waits_for_who_is_inside(self, cuda: FakeCuda) -> None:
        engine = Doubler(cuda)
        entered, go_on = threading.Event(), threading.Event()

        def during() -> None:
            entered.set()
            assert go_on.wait(10)

        engine.during = during
        session = DeviceSession(open_device(), engine)
        given = feeds()
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(session.run, given)
            assert entered.wait(10)
            closing = pool.submit(session.close)
            assert not closing.done()
            go_on.set()
            np.testing.assert_array_equal(running.result(10)["y"], expected(given))
            closing.result(10)
        assert cuda.left_behind() == {}
        with pytest.raises(SessionError, match="after close"):
            session.run(given)


class TestNothingIsLeftBehind:
    def test_after_a_thousand_sessions(self, backend: str, cuda: FakeCuda) -> None:
        for turn in range(1000):
            with DeviceSession(open_device(), Doubler(cuda), contexts=1 + turn % 2) as session:
                for _ in range(turn % 4):
                    session.run(feeds())
        left = cuda.left_behind()
        # PyCUDA's primary context is kept, once, to the end of the process.
        assert left == ({} if backend == "cuda-python" else {"retained": 1})

    def test_when_there_is_no_memory_for_the_buffers(self, backend: str, cuda: FakeCuda) -> None:
        cuda.memory_limit_bytes = 150  # x fits, y does not
        with DeviceSession(open_device(), Doubler(cuda)) as session:
            with pytest.raises(SessionError, match="OUT_OF_MEMORY"):
                session.run(feeds())
            assert not cuda.host
            assert not cuda.device
            assert not cuda.streams
            assert not cuda.contexts


def test_a_device_is_a_device(backend: str) -> None:
    """Both have every method of the protocol."""
    device = open_device()
    assert [name for name in vars(Device) if not name.startswith("_") and not hasattr(device, name)] == []
