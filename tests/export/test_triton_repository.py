from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from miniature import SIZE, WINDOW, miniature_bundle, miniature_frames
from scripts import load_script
from triton_server import ServerError, TritonServer, read_config

from fer_edge.cli.export import command
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, InputError, RecipeError, SessionError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.export.target import export_target
from fer_edge.export.triton_config import TritonOptions
from fer_edge.runtime.feature_window import FeatureWindow
from fer_edge.runtime.inference import Network
from fer_edge.runtime.video_source import SourceFrame, VideoSource


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return miniature_bundle(tmp_path_factory.mktemp("bundle") / "miniature")


@pytest.fixture(scope="module")
def repository(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target") / "triton"
    export_target(bundle, target="triton", out=folder)
    return folder


def stream_of_the_runtime(bundle: Bundle, frames: np.ndarray, *, variant: str) -> list[np.ndarray]:
    """Probabilities of frames that come at the model's rate, by the runtime's own window."""
    sequence = bundle.manifest.sequence
    window, rows = FeatureWindow(sequence), []
    with Network.open(bundle, variant=variant) as network:
        for index, feature in enumerate(network.encode(frames)):
            window.push(feature, timestamp_s=index / sequence.frame_rate)
            view = window.view()
            rows.append(network.probabilities(view.features[None], np.array([view.length]))[0])
    return rows


def test_a_server_gives_what_the_runtime_gives(bundle: Bundle, repository: Path) -> None:
    """Forty frames of two cameras, one request at a time, taking turns; the second starts over half-way."""
    server = TritonServer(repository / "models")
    frames = {7: miniature_frames(40, seed=1), 9: miniature_frames(40, seed=2)}
    got: dict[int, list[np.ndarray]] = {7: [], 9: []}
    lengths = []
    for index in range(40):
        for stream, faces in frames.items():
            start = index == 0 or (stream == 9 and index == 20)
            reply = server.infer(
                "miniature_recognizer", {"frames": faces[index : index + 1]}, sequence_id=stream, start=start
            )
            got[stream].append(reply["probabilities"][0])
            if stream == 9:
                lengths.append(reply["next_length"].item())
    halves = [stream_of_the_runtime(bundle, part, variant="fp32") for part in np.split(frames[9], 2)]
    np.testing.assert_allclose(got[7], stream_of_the_runtime(bundle, frames[7], variant="fp32"), atol=1e-5)
    np.testing.assert_allclose(got[9], halves[0] + halves[1], atol=1e-5)
    assert lengths == 2 * [min(index + 1, WINDOW) for index in range(20)]


def test_every_shipped_variant_is_served(tmp_path: Path) -> None:
    """The shipped bundle on a CPU server, in the variant that the recipe chooses."""
    base = Bundle.open("base")
    report = export_target(base, target="triton-cpu", out=tmp_path / "triton")
    assert report.variant == "int8"
    assert report.parity is not None
    assert report.parity.max_abs_diff < 1e-5
    assert report.parity.label_agreement == 1
    server = TritonServer(tmp_path / "triton" / "models")
    config = server.configs["base_step"]
    assert [list(state.dims) for state in config.sequence_batching.state] == [
        [1],
        [16, base.manifest.sequence.feature_size],
    ]
    faces = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    reply = server.infer("base_recognizer", {"frames": faces}, sequence_id=1, start=True)
    np.testing.assert_allclose(reply["probabilities"], stream_of_the_runtime(base, faces, variant="int8"), atol=1e-5)


def test_the_client_need_not_say_more_than_triton_asks(repository: Path) -> None:
    server = TritonServer(repository / "models")
    frame = {"frames": miniature_frames(1)}
    with pytest.raises(ServerError, match="non-zero correlation id"):
        server.infer("miniature_recognizer", frame)
    with pytest.raises(ServerError, match="START flag"):
        server.infer("miniature_recognizer", frame, sequence_id=3)
    server.infer("miniature_recognizer", frame, sequence_id=3, start=True, end=True)
    with pytest.raises(ServerError, match="START flag"):
        server.infer("miniature_recognizer", frame, sequence_id=3)


def test_the_options_reach_the_configuration(bundle: Bundle, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'summary = "mine"\nkind = "triton"\nprovider = "cpu"\nvariant = "fp32"\n'
        '[shapes]\ndynamic = true\n[triton]\ndevice = "cpu"\nmax_batch = 5\n'
        "max_delay_us = 300\nstreams = 12\ninstances = 2\nthreads = 3\n"
    )
    export_target(bundle, target=str(recipe), out=tmp_path / "triton")
    encoder, step = (
        read_config(tmp_path / "triton" / "models" / f"miniature_{model}") for model in ("encoder", "step")
    )
    for config in (encoder, step):
        assert config.max_batch_size == 5
        assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, 2)  # KIND_CPU
        assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert encoder.dynamic_batching.max_queue_delay_microseconds == 300
    assert [warm.batch_size for warm in encoder.model_warmup] == [1, 5]
    assert step.sequence_batching.oldest.max_candidate_sequences == 12
    labels = (tmp_path / "triton" / "models" / "miniature_step" / "labels.txt").read_text()
    assert labels.splitlines() == list(EXPRESSIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "tensorrt", "device": "cpu"}, "the only device of TensorRT"),
        ({"max_batch": 0}, "max_batch: got 0, expected 1 to 1024"),
        ({"streams": 0}, "streams: got 0"),
        ({"instances": 65}, "instances: got 65"),
        ({"max_delay_us": -1}, "max_delay_us: got -1"),
        ({"threads": 0}, "threads: got 0"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TritonOptions(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('kind = "triton"', "shapes.dynamic: got False, expected true"),
        ('kind = "ort"\n[triton]\nstreams = 3', "the kind 'ort' is not a server"),
        ('kind = "triton"\n[shapes]\ndynamic = true\n[triton]\nstream = 3', "did you mean 'streams'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(lines: str, message: str, bundle: Bundle, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'summary = "mine"\nprovider = "cpu"\n{lines}\n')
    with pytest.raises(RecipeError, match=message):
        export_target(bundle, target=str(recipe), out=tmp_path / "triton")


def test_a_step_that_computes_something_else_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fer_edge.graph.streaming_step as step

    real = step.step_graph
    monkeypatch.setattr(
        step, "step_graph", lambda head, window, temperature: real(head, window=window, temperature=3.0)
    )
    with pytest.raises(GateError, match="against the runtime"):
        export_target(bundle, target="triton", out=tmp_path / "triton")
    assert list(tmp_path.iterdir()) == []


def test_no_clip_graph_is_served(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="leave out --clip"):
        export_target(bundle, target="triton", out=tmp_path / "triton", clip=True)
    assert list(tmp_path.iterdir()) == []


class TestTensorRt:
    def test_unsigned_quantization_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SessionError, match=r"variant 'int8' quantizes to uint8 in its encoder.*--variant int8-trt"):
            export_target(Bundle.open("base"), target="triton-tensorrt", variant="int8", out=tmp_path / "triton")
        assert list(tmp_path.iterdir()) == []

    def test_the_script_builds_a_plan_a_model(self, bundle: Bundle, tmp_path: Path) -> None:
        """With a trtexec that writes down what it was asked for."""
        folder = tmp_path / "triton"
        export_target(bundle, target="triton-tensorrt", variant="fp32", out=folder)
        assert read_config(folder / "models" / "miniature_step").platform == "tensorrt_plan"
        tools = tmp_path / "bin"
        tools.mkdir()
        fake = tools / "trtexec"
        fake.write_text(
            '#!/bin/bash\n[[ $1 == --help ]] && { echo "  --stronglyTyped"; exit; }\necho "$@" >>"$CALLS"\n'
            'for each; do [[ $each == --saveEngine=* ]] && echo plan >"${each#*=}"; done; true\n'
        )
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        calls = tmp_path / "calls"
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls)}
        subprocess.run([folder / "build-plans.sh"], check=True, env=environment, capture_output=True)
        for model in ("encoder", "step"):
            assert [path.name for path in (folder / "models" / f"miniature_{model}" / "1").iterdir()] == ["model.plan"]
        encoder, step = calls.read_text().splitlines()
        assert f"--maxShapes=frames:64x{SIZE}x{SIZE}" in encoder
        assert f"window:1x{WINDOW}x24,length:1x1,ready:1x1,start:1x1" in step
        assert "--stronglyTyped" in encoder

    @pytest.mark.tensorrt
    def test_tensorrt_builds_both_graphs(self, tmp_path: Path) -> None:
        """TensorRT-RTX, which needs no GPU to build, at the profile that the script asks for."""
        trt = pytest.importorskip("tensorrt_rtx")
        export_target(Bundle.open("base"), target="triton-tensorrt", out=tmp_path / "triton")
        script = (tmp_path / "triton" / "build-plans.sh").read_text()
        for model in ("base_encoder", "base_step"):
            builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
            network = builder.create_network(0)
            parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
            graph = (tmp_path / "triton" / "onnx" / f"{model}.onnx").read_bytes()
            assert parser.parse(graph), [parser.get_error(index).desc() for index in range(parser.num_errors)]
            line = next(line for line in script.splitlines() if line.startswith(f"build {model} "))
            ranges = re.findall(r"--(?:min|opt|max)Shapes=(\S+)", line)
            sizes = [{name: size for name, size in (each.split(":") for each in end.split(","))} for end in ranges]
            profile = builder.create_optimization_profile()
            for name in sizes[0]:
                profile.set_shape(name, *(tuple(map(int, end[name].split("x"))) for end in sizes))
            config = builder.create_builder_config()
            config.add_optimization_profile(profile)
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            assert builder.build_serialized_network(network, config) is not None

    def test_without_trtexec_the_script_says_where_to_run_it(self, bundle: Bundle, tmp_path: Path) -> None:
        export_target(bundle, target="triton-tensorrt", variant="fp32", out=tmp_path / "triton")
        done = subprocess.run(
            ["/bin/bash", tmp_path / "triton" / "build-plans.sh"], env={"PATH": "/usr/bin:/bin"}, capture_output=True
        )
        assert done.returncode == 1
        assert b"no trtexec here" in done.stderr


def test_from_the_command_line(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "triton"
    done = CliRunner().invoke(command, [str(bundle.path), "--target", "triton", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert (out / "models" / "miniature_step" / "1" / "model.onnx").is_file()
    assert stat.S_IMODE((out / "models" / "miniature_recognizer" / "1").stat().st_mode) & 0o055


class TestExample:
    def test_it_follows_a_face_through_the_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        export_target(Bundle.open("base"), target="triton", out=tmp_path / "triton")
        server = TritonServer(tmp_path / "triton" / "models")
        monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
        sys.modules["tritonclient"].grpc = client_of(server)  # type: ignore[attr-defined]
        example = load_script("export/examples/triton_client.py")
        monkeypatch.setattr(example, "open_any_source", noise_source)
        monkeypatch.setattr(sys, "argv", ["triton_client.py", "--source", "noise"])
        example.main()
        lines = capsys.readouterr().out.splitlines()
        # 2 seconds at 20 frames a second, a pause, 0.5 more: the bundle takes 10 a second, and forgets in a pause.
        fills = [*(min(index, 16) for index in range(1, 21)), *range(1, 6)]
        assert [line.rpartition(" ")[2] for line in lines] == [f"{fill}/16" for fill in fills]
        assert all(any(label in line for label in EXPRESSIONS) for line in lines)


def noise_source(name: str) -> VideoSource:
    """50 frames whose one face has a known place."""
    random = np.random.default_rng(0)
    times = [index / 20 + (3 if index >= 40 else 0) for index in range(50)]
    frames = (
        SourceFrame(
            image=random.integers(0, 256, (64, 64, 3), dtype=np.uint8), timestamp_s=time_s, boxes=((8, 8, 56, 56),)
        )
        for time_s in times
    )
    return VideoSource(frames, name=name, kind="synthetic", frame_rate=20.0, count=len(times))


def client_of(server: TritonServer) -> ModuleType:
    """The part of `tritonclient.grpc` that the example uses, without a network."""

    class InferInput:
        def __init__(self, name: str, shape: list[int], data_type: str) -> None:
            self.name, self.shape, self.data_type = name, shape, data_type

        def set_data_from_numpy(self, value: np.ndarray) -> None:
            assert list(value.shape) == self.shape
            assert value.dtype == {"UINT8": np.uint8}[self.data_type]
            self.value = value

    class InferResult:
        def __init__(self, found: dict[str, np.ndarray]) -> None:
            self.as_numpy = found.__getitem__

    class InferenceServerClient:
        def __init__(self, url: str) -> None:
            assert url == "localhost:8001"

        def infer(
            self, model: str, inputs: list[InferInput], *, outputs: list[str], sequence_id: int, sequence_start: bool
        ) -> InferResult:
            feeds = {each.name: each.value for each in inputs}
            found = server.infer(model, feeds, sequence_id=sequence_id, start=sequence_start)
            return InferResult({name: found[name] for name in outputs})

    module = ModuleType("tritonclient.grpc")
    module.InferInput, module.InferRequestedOutput = InferInput, str  # type: ignore[attr-defined]
    module.InferenceServerClient = InferenceServerClient  # type: ignore[attr-defined]
    return module
