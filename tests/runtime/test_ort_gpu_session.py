"""ONNX Runtime's GPU session, with its CPU provider in the GPU's place: binding, addresses, refusals."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny import tiny_encoder, tiny_frames, tiny_head

from fer_edge.core.errors import InputError, OutputError, SessionError
from fer_edge.runtime import ort_gpu_session
from fer_edge.runtime.ort_gpu_session import GpuProvider, OrtGpuSession, stray_nodes
from fer_edge.runtime.providers import open_session

ENCODER = tiny_encoder().SerializeToString()
HEAD = tiny_head().SerializeToString()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The CPU provider answers to every GPU provider's name; the options that each session was given."""
    given: list[dict[str, str]] = []
    load = onnxruntime.InferenceSession

    def loading(graph: bytes, options: Any, providers: list[Any]) -> Any:
        (provider,) = providers
        if isinstance(provider, tuple):  # only the GPU session gives options
            given.append(provider[1])
            provider = provider[0]
        return load(graph, options, providers=[provider])

    cpu = GpuProvider(name="CPUExecutionProvider", device="cpu")
    monkeypatch.setattr(ort_gpu_session, "GPU_PROVIDERS", {"cuda": cpu, "ort-tensorrt": cpu})
    monkeypatch.setattr(onnxruntime, "InferenceSession", loading)
    return given


def test_computes_what_the_cpu_session_does(on_cpu: list[dict[str, str]]) -> None:
    features = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    feeds = {"features": features, "length": np.array([5, 2])}
    with open_session(HEAD) as cpu, OrtGpuSession(HEAD, provider="cuda", threads=1) as gpu:
        expected = cpu.run(feeds)
        for _ in range(2):  # the second run finds its buffers bound
            got = gpu.run(feeds)
            assert got.keys() == expected.keys()
            np.testing.assert_allclose(got["logits"], expected["logits"], atol=1e-6)
        assert (gpu.provider, gpu.threads) == ("cuda", 1)
        assert [str(spec) for spec in gpu.inputs] == [str(spec) for spec in cpu.inputs]


def test_buffers_stay_while_shapes_stay(on_cpu: list[dict[str, str]]) -> None:
    with OrtGpuSession(ENCODER, provider="cuda", threads=1) as session:
        first = session.run({"frames": tiny_frames(1, seed=1)})["features"]
        binding = next(iter(session._bindings.values()))
        addresses = [value.data_ptr() for value in (*binding._inputs.values(), *binding._outputs.values())]
        kept = first.copy()
        session.run({"frames": tiny_frames(1, seed=2)})
        assert [value.data_ptr() for value in (*binding._inputs.values(), *binding._outputs.values())] == addresses
        np.testing.assert_array_equal(first, kept)  # outputs are the caller's own
        for batch in range(1, 12):
            session.run({"frames": tiny_frames(batch)})
        assert len(session._bindings) == 8


def test_takes_strided_arrays_and_checks_feeds(on_cpu: list[dict[str, str]]) -> None:
    wide = tiny_frames(6)
    with OrtGpuSession(ENCODER, provider="cuda", threads=1) as session:
        strided = session.run({"frames": wide[::2]})
        np.testing.assert_array_equal(strided["features"], session.run({"frames": wide[::2].copy()})["features"])
        with pytest.raises(InputError, match="got dtype float32"):
            session.run({"frames": wide.astype(np.float32)})


def test_several_threads_get_their_own_results(on_cpu: list[dict[str, str]]) -> None:
    frames = [tiny_frames(1, seed=seed) for seed in range(4)]
    with OrtGpuSession(ENCODER, provider="cuda", threads=1) as session:
        expected = [session.run({"frames": frame})["features"] for frame in frames]
        wrong: list[int] = []

        def work(number: int) -> None:
            for _ in range(25):
                if not np.array_equal(session.run({"frames": frames[number]})["features"], expected[number]):
                    wrong.append(number)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_closed_is_closed(on_cpu: list[dict[str, str]]) -> None:
    session = OrtGpuSession(ENCODER, provider="cuda", threads=1)
    session.close()
    session.close()
    with pytest.raises(SessionError, match="after close"):
        session.run({"frames": tiny_frames(1)})


def test_the_options_of_each_provider(on_cpu: list[dict[str, str]], tmp_path: Path) -> None:
    OrtGpuSession(ENCODER, provider="cuda", threads=1).close()
    OrtGpuSession(ENCODER, provider="ort-tensorrt", threads=1).close()
    OrtGpuSession(ENCODER, provider="ort-tensorrt", threads=1, cache=tmp_path / "engines").close()
    assert on_cpu[0] == {"use_tf32": "0"}
    assert on_cpu[1] == {}
    assert on_cpu[2]["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert (tmp_path / "engines").is_dir()


def test_a_cache_that_cannot_be_written_is_named(on_cpu: list[dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        OrtGpuSession(ENCODER, provider="ort-tensorrt", threads=1, cache=tmp_path / "file" / "engines")


def test_a_graph_that_would_be_shared_with_another_provider_is_refused(
    on_cpu: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime loads it without a word: here its profile is made to say that one convolution went elsewhere."""
    read = json.loads

    def moved(text: str) -> Any:
        events = read(text)
        for event in events:
            if event.get("args", {}).get("op_name") in ("Conv", "FusedConv"):
                event["args"]["provider"] = "SlowExecutionProvider"
        return events

    monkeypatch.setattr(ort_gpu_session.json, "loads", moved)
    with pytest.raises(
        SessionError, match=r"asked for CPUExecutionProvider, but it leaves part.*Conv.*on SlowExecutionProvider"
    ):
        OrtGpuSession(ENCODER, provider="cuda", threads=1)


def test_a_provider_that_was_dropped_is_an_error(on_cpu: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the CUDA libraries are missing ONNX Runtime warns in its log and runs on the CPU."""
    cuda = GpuProvider(name="AzureExecutionProvider", device="cpu")
    monkeypatch.setattr(ort_gpu_session, "GPU_PROVIDERS", {"cuda": cuda})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    load = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, options, providers: load(graph, options, [("CPUExecutionProvider", {})]),
    )
    with pytest.raises(SessionError, match="asked for AzureExecutionProvider, but CPUExecutionProvider would run"):
        OrtGpuSession(ENCODER, provider="cuda", threads=1)


def test_only_what_computes_floats_elsewhere_is_a_stray() -> None:
    def event(kind: str, provider: str, output: str, name: str = "n_kernel_time") -> dict[str, Any]:
        return {"name": name, "args": {"op_name": kind, "provider": provider, "output_type_shape": [{output: [1]}]}}

    wanted = "CUDAExecutionProvider"
    events = [
        event("Conv", wanted, "float"),
        event("Shape", "CPUExecutionProvider", "int64"),
        event("MemcpyToHost", "CPUExecutionProvider", "float"),
        event("LSTM", "CPUExecutionProvider", "float", name="lstm_kernel_time"),
        event("LSTM", "CPUExecutionProvider", "float", name="lstm_kernel_time"),
        event("Conv", "CPUExecutionProvider", "float", name="model_run"),
        {"name": "model_loading", "args": {}},
        {"name": "old_kernel_time", "args": {"op_name": "Gemm", "provider": "CPUExecutionProvider"}},
    ]
    strays = ("LSTM 'lstm' on CPUExecutionProvider", "Gemm 'old' on CPUExecutionProvider")
    assert stray_nodes(events, wanted=wanted) == strays


@pytest.mark.parametrize("provider", ["cuda", "ort-tensorrt"])
@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)
def test_without_a_gpu_build_nothing_else_runs_in_its_place(provider: str) -> None:
    with pytest.raises(SessionError, match=r"has no (CUDA|Tensorrt)ExecutionProvider.*fer-edge\[cuda\]"):
        open_session(ENCODER, provider=provider)
