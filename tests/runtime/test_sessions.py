from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import FEATURES, tiny_encoder, tiny_frames, tiny_head

from fer_edge.core.errors import InputError, MissingPackageError, SessionError
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import all_finite

_LOCAL = ("cpu", "openvino")


def _encoder() -> bytes:
    return tiny_encoder().SerializeToString()


def _head() -> bytes:
    return tiny_head().SerializeToString()


@pytest.mark.parametrize("provider", _LOCAL)
class TestEverySession:
    def test_says_what_it_is(self, provider: str) -> None:
        with open_session(_encoder(), provider=provider, threads=2) as session:
            assert session.provider == provider
            assert session.threads == 2
            package, version = session.provider_version.split()
            assert package in ("onnxruntime", "openvino")
            assert version[0].isdigit()
            assert [str(spec) for spec in session.inputs] == ["frames uint8 (any, 16, 16)"]
            outputs = ["features float32 (any, 8)", "attention float32 (any, 4)"]
            assert [str(spec) for spec in session.outputs] == outputs

    @pytest.mark.parametrize("batch", [1, 3])
    def test_computes_what_numpy_does(self, provider: str, batch: int) -> None:
        head = tiny_head()
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in head.graph.initializer}
        features = np.random.default_rng(0).normal(size=(batch, 5, FEATURES)).astype(np.float32)
        length = np.arange(1, batch + 1)
        with open_session(_head(), provider=provider) as session:
            got = session.run({"features": features, "length": length})
        scores = (features @ weights["query"])[..., 0]
        attention = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        logits = (features * attention[..., None]).sum(axis=1) @ weights["classes"] + 0.01 * length[:, None]
        np.testing.assert_allclose(got["attention"], attention, atol=1e-6)
        np.testing.assert_allclose(got["logits"], logits, atol=1e-5)

    def test_takes_arrays_that_do_not_lie_in_one_piece(self, provider: str) -> None:
        wide = tiny_frames(6)
        with open_session(_encoder(), provider=provider) as session:
            whole = session.run({"frames": wide[::2].copy()})
            for _ in range(2):  # a shape that came before may have its own buffers
                strided = session.run({"frames": wide[::2]})
                np.testing.assert_array_equal(strided["features"], whole["features"])

    def test_shapes_that_take_turns_are_kept_apart(self, provider: str) -> None:
        batches = [tiny_frames(rows, seed=rows) for rows in (1, 2, 9)]
        with open_session(_encoder(), provider=provider) as session:
            first = [session.run({"frames": frames}) for frames in batches]
            again = [session.run({"frames": frames}) for frames in batches]
            other = session.run({"frames": batches[1][::-1]})
        for before, after in zip(first, again, strict=True):
            np.testing.assert_array_equal(before["features"], after["features"])
        np.testing.assert_allclose(other["features"], first[1]["features"][::-1], atol=1e-6)

    def test_outputs_are_the_callers_own(self, provider: str) -> None:
        with open_session(_encoder(), provider=provider) as session:
            first = session.run({"frames": tiny_frames(1, seed=1)})["features"]
            kept = first.copy()
            session.run({"frames": tiny_frames(1, seed=2)})
        np.testing.assert_array_equal(first, kept)

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [
            ({}, "input 'features' is missing"),
            ({"features": np.zeros((1, 1, FEATURES), np.float32)}, "input 'length' is missing"),
            ({"features": [[1.0]], "length": np.ones(1, np.int64)}, "got list, expected a numpy array"),
            ({"features": np.zeros((1, 1, FEATURES)), "length": np.ones(1, np.int64)}, "got dtype float64, expected"),
            ({"features": np.zeros((1, FEATURES), np.float32), "length": np.ones(1, np.int64)}, r"got shape \(1, 8\)"),
            ({"features": np.zeros((1, 1, 9), np.float32), "length": np.ones(1, np.int64)}, r"got shape \(1, 1, 9\)"),
            ({"features": np.zeros((1, 0, FEATURES), np.float32), "length": np.ones(1, np.int64)}, "no empty dim"),
            ({"features": np.full((1, 1, FEATURES), np.nan, np.float32), "length": np.ones(1, np.int64)}, "NaN"),
            (
                {"features": np.zeros((1, 1, FEATURES), np.float32), "length": np.ones(1, np.int64), "x": np.ones(1)},
                "unknown input 'x'",
            ),
        ],
    )
    def test_checks_the_feeds_first(self, provider: str, feeds: dict[str, Any], message: str) -> None:
        with open_session(_head(), provider=provider) as session, pytest.raises(InputError, match=message):
            session.run(feeds)

    def test_closed_is_closed(self, provider: str) -> None:
        session = open_session(_encoder(), provider=provider)
        session.close()
        session.close()
        with pytest.raises(SessionError, match="after close"):
            session.run({"frames": tiny_frames(1)})

    def test_a_truncated_graph_is_refused(self, provider: str) -> None:
        with pytest.raises(SessionError, match="not a whole ONNX file"):
            open_session(_encoder()[:-40], provider=provider)

    def test_a_graph_the_engine_does_not_know_is_refused(self, provider: str) -> None:
        node = helper.make_node("Teleport", ["x"], ["y"])
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), ir_version=8)
        with pytest.raises(SessionError, match="refuses the graph"):
            open_session(model.SerializeToString(), provider=provider)

    def test_nan_weights_are_refused(self, provider: str) -> None:
        with pytest.raises(SessionError, match="the weight 'kernel' holds NaN"):
            open_session(_with_nan().SerializeToString(), provider=provider)

    def test_several_threads_get_their_own_results(self, provider: str) -> None:
        with open_session(_encoder(), provider=provider) as session:
            frames = [tiny_frames(1, seed=seed) for seed in range(4)]
            expected = [session.run({"frames": frame})["features"] for frame in frames]
            wrong: list[int] = []

            def work(number: int) -> None:
                for _ in range(25):
                    got = session.run({"frames": frames[number]})["features"]
                    if not np.array_equal(got, expected[number]):
                        wrong.append(number)

            workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert wrong == []


def test_the_engines_agree() -> None:
    frames = tiny_frames(4)
    results = []
    for provider in _LOCAL:
        with open_session(_encoder(), provider=provider) as session:
            results.append(session.run({"frames": frames})["features"])
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_an_output_whose_size_only_the_run_tells() -> None:
    """Of such a graph no buffer is kept from one run for the next."""
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["values"], ["places"])],
        "places",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("places", TensorProto.INT64, [1, "found"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with open_session(model.SerializeToString()) as session:
        for values in ([0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]):
            [places] = session.run({"values": np.array(values, np.float32)})["places"]
            np.testing.assert_array_equal(places, np.flatnonzero(values))


def test_unknown_provider_and_threads() -> None:
    with pytest.raises(InputError, match="provider: got 'tpu', expected one of cpu, cuda, ort-tensorrt, openvino"):
        open_session(_encoder(), provider="tpu")
    with pytest.raises(InputError, match="threads: got 0"):
        open_session(_encoder(), threads=0)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)
def test_cuda_is_not_replaced_by_the_cpu() -> None:
    with pytest.raises(SessionError, match=r"has no CUDAExecutionProvider, only .*CPUExecutionProvider"):
        open_session(_encoder(), provider="cuda")


def test_a_provider_that_would_not_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime drops a provider whose libraries are missing and says so only in its log."""
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["OtherExecutionProvider"])
    with pytest.raises(SessionError, match="asked for CPUExecutionProvider, but OtherExecutionProvider would run"):
        open_session(_encoder(), provider="cpu")


@pytest.mark.gpu
def test_cuda_runs_and_agrees() -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA: pip install 'fer-edge[cuda]'")
    with open_session(_encoder(), provider="cuda") as cuda, open_session(_encoder()) as cpu:
        got, expected = (session.run({"frames": tiny_frames(3)})["features"] for session in (cuda, cpu))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("provider", "module", "extra"),
    [("cpu", "onnxruntime", "cpu"), ("cuda", "onnxruntime", "cuda"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_engine_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, provider: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"'{module}'.*pip install 'fer-edge\[{extra}\]'"):
        open_session(_encoder(), provider=provider)


@pytest.mark.parametrize(("provider", "package"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_nothing_reports_home_and_only_the_engine_asked_for_is_loaded(
    tmp_path: Path, provider: str, package: str
) -> None:
    code = """
import sys, threading
from pathlib import Path
for name in ("torch", "nncf", "onnx"):
    sys.modules[name] = None
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args[:2])) if event.startswith("socket.") else None)
from fer_edge.runtime.providers import open_session
open_session(Path(sys.argv[1]).read_bytes(), provider=sys.argv[2]).close()
print(seen, [thread.name for thread in threading.enumerate()], "openvino_telemetry" in sys.modules)
print(sorted({"onnxruntime", "openvino"} & set(sys.modules)))
"""
    (tmp_path / "encoder.onnx").write_bytes(_encoder())
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", tmp_path / "encoder.onnx", provider],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["[] ['MainThread'] False", f"['{package}']"]
    assert done.stderr == ""


def _with_nan() -> onnx.ModelProto:
    model = tiny_encoder()
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")
    weights = numpy_helper.to_array(kernel).copy()
    weights[0, 0, 0, 0] = np.nan
    kernel.CopyFrom(numpy_helper.from_array(weights, "kernel"))
    return model


_SIGNAL_AFTER_SESSIONS = """
import os, signal, sys, time
from tiny import tiny_encoder
from fer_edge.runtime import open_session

sessions = [open_session(tiny_encoder().SerializeToString(), provider="openvino") for _ in range(3)]
while sessions:
    sessions.pop(0).close()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_survived_after_openvino_sessions_have_gone() -> None:
    pytest.importorskip("openvino")
    script = f"import sys; sys.path[:0] = {sys.path!r}\n{_SIGNAL_AFTER_SESSIONS}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_finite_numbers_are_told_from_others_however_large(dtype: type[np.floating]) -> None:
    numbers = np.linspace(-1, 1, 24, dtype=dtype).reshape(2, 3, 4)
    assert all_finite(numbers)
    assert all_finite(numbers.transpose(2, 0, 1))
    assert all_finite(np.full((2, 3), np.finfo(dtype).max))  # their squares are not finite
    for wrong in (np.nan, np.inf, -np.inf):
        spoilt = numbers.copy()
        spoilt[1, 2, 3] = wrong
        assert not all_finite(spoilt)
