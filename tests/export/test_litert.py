"""LiteRT files: what they compute, hold and refuse; the session that runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from miniature import FEATURES, WINDOW, miniature_bundle, miniature_frames, run_graph, with_crowd
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, InputError, MissingPackageError, SessionError
from fer_edge.export import target as target_module
from fer_edge.export.job import target_job
from fer_edge.export.parity.stages import available_engines, check_parity, engine_opener
from fer_edge.export.target import TargetPlan, export_target
from fer_edge.graph.graph import Graph
from fer_edge.runtime import Network, open_session
from fer_edge.runtime.inference import choose_variant

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from fer_edge.export.litert_backend import litert_run
from fer_edge.export.litert_cache import write_missing
from fer_edge.export.litert_file import METADATA_NAME, LiteRtFile
from fer_edge.export.litert_operators import add_signature
from fer_edge.runtime.litert_session import LiteRtSession, find_litert


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_crowd(miniature_bundle(tmp_path_factory.mktemp("bundle") / "miniature"))


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targets") / "litert"
    report = export_target(bundle, target="litert", out=out)
    assert report.parity is not None
    assert report.parity.max_abs_diff < 1e-4
    return out


@pytest.fixture(scope="module")
def engines(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    assert len(write_missing(bundle, ["fp32"], folder=folder)) == 3
    assert write_missing(bundle, ["fp32"], folder=folder) == ()
    return folder


def opened(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def operators(model: Any, subgraph: int = 0) -> list[tuple[str, Any, Any]]:
    """Name, first input and output of each operator."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    graph = model.subgraphs[subgraph]
    return [
        (
            names[model.operatorCodes[each.opcodeIndex].builtinCode],
            *(graph.tensors[at[0]] for at in (each.inputs, each.outputs)),
        )
        for each in graph.operators
    ]


def model_of(nodes: list[Any], shapes: dict[str, list[int]], weights: dict[str, Any], outputs: list[str]) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def converted(model: ModelProto) -> bytes:
    file = LiteRtFile("test")
    add_signature(file, Graph(model), name="run")
    return file.write()


class TestFiles:
    def test_hold_every_head_with_a_window_and_a_single_frame(self, bundle: Bundle, exported: Path) -> None:
        assert sorted(path.name for path in exported.iterdir()) == [
            "crowd.tflite", "encoder.tflite", "head.tflite", "target.json",
        ]  # fmt: skip
        for part, classes in (("head", 7), ("crowd", 8)):
            model = opened((exported / f"{part}.tflite").read_bytes())
            assert [signature.signatureKey for signature in model.signatureDefs] == [b"window", b"frame"]
            with LiteRtSession((exported / f"{part}.tflite").read_bytes(), threads=1) as session:
                assert str(session.inputs[0]) == f"features float32 (any, 1 or {WINDOW}, {FEATURES})"
                assert [spec.shape for spec in session.outputs if spec.name == "logits"] == [(None, classes)]

    def test_say_what_they_are(self, bundle: Bundle, exported: Path) -> None:
        model = opened((exported / "crowd.tflite").read_bytes())
        [entry] = model.metadata
        assert entry.name.decode() == METADATA_NAME
        facts = json.loads(bytes(model.buffers[entry.buffer].data))
        crowd = bundle.variant("fp32").crowd
        assert crowd is not None
        assert facts["labels"] == list(crowd.labels)
        assert facts["preprocess"]["size"] == bundle.manifest.preprocess.size
        assert facts["not_judgeable_threshold"] == crowd.not_judgeable_threshold
        assert facts["graph_sha256"] == crowd.graph.sha256
        assert facts["licence"] == "test weights, random"

    def test_weights_begin_at_multiples_of_16_bytes(self, exported: Path) -> None:
        data = (exported / "encoder.tflite").read_bytes()
        for buffer in opened(data).buffers:
            if buffer.data is not None and len(buffer.data) > 64:
                assert data.index(bytes(buffer.data)) % 16 == 0

    def test_the_same_graphs_give_the_same_bytes(self, bundle: Bundle, exported: Path, tmp_path: Path) -> None:
        export_target(bundle, target="litert", out=tmp_path / "again")
        for path in exported.glob("*.tflite"):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


class TestInt8:
    """`nano` of the zoo, whose scales and integers must arrive as they are."""

    @pytest.mark.parametrize(("variant", "zero_point"), [("int8-trt", 0), ("int8", -128)])
    def test_scales_and_weights_are_the_graphs_own(self, variant: str, zero_point: int, tmp_path: Path) -> None:
        nano = Bundle.open("nano")
        report = export_target(nano, target="litert", variant=variant, out=tmp_path / "files")
        assert report.precision == "int8"
        graph = Graph.read(nano.graph_bytes(variant, "encoder"))
        wanted = {float(graph.constant(node.input[1])) for node in graph.nodes if node.op_type == "QuantizeLinear"}
        model = opened((tmp_path / "files" / "encoder.tflite").read_bytes())
        found, integer = set(), 0
        for kind, given, made in operators(model):
            if kind in ("CONV_2D", "ADD", "QUANTIZE") and made.quantization is not None:
                assert made.quantization.zeroPoint.tolist() in ([zero_point], [0])
                found.add(float(made.quantization.scale[0]))
                integer += kind == "CONV_2D" and given.type == made.type == schema.TensorType.INT8
        assert {np.float32(scale) for scale in found} == {np.float32(scale) for scale in wanted}
        stored = [node for node in graph.nodes if node.op_type == "Conv" and graph.constant(node.input[1]) is None]
        assert integer == len(stored)
        held = {bytes(buffer.data) for buffer in model.buffers if buffer.data is not None}
        for node in stored:
            numbers = graph.stored_constant(graph.producer(node.input[1]).input[0])  # type: ignore[union-attr]
            assert numbers is not None
            assert np.ascontiguousarray(numbers.transpose(0, 2, 3, 1)).tobytes() in held

    def test_a_convolution_computes_in_integers(self) -> None:
        random = np.random.default_rng(0)
        numbers = random.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
        weights = {
            "in_scale": np.float32(0.05), "out_scale": np.float32(0.9), "zero": np.int8(0), "w": numbers,
            "w_scale": np.float32([0.01, 0.02, 0.005]), "w_zero": np.zeros(3, np.int8), "b": np.float32([1, -2, 0.3]),
        }  # fmt: skip
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "in_scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "in_scale", "zero"], ["dq"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["dw"], axis=0),
            helper.make_node("Conv", ["dq", "dw", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("QuantizeLinear", ["r", "out_scale", "zero"], ["q2"]),
            helper.make_node("DequantizeLinear", ["q2", "out_scale", "zero"], ["y"]),
        ]
        model = model_of(nodes, {"x": [1, 2, 8, 8]}, weights, ["y"])
        data = converted(model)
        assert [kind for kind, *_ in operators(opened(data)) if kind in ("CONV_2D", "RELU")] == ["CONV_2D"]
        x = random.normal(0, 3, (1, 2, 8, 8)).astype(np.float32)
        with LiteRtSession(data, threads=1) as session:
            got = session.run({"x": x})["y"]
        wanted = run_graph(model, {"x": x})["y"]
        steps = (got - wanted) / np.float32(0.9)
        assert np.abs(steps).max() < 1.01
        assert np.mean(np.abs(steps) > 0.5) < 0.02


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("shapes.frames.max=4", r"got 1x16x16..1x16x16..4x16x16 for 'frames'.*expected one row of fixed sizes"),
            ("shapes.dynamic=true", "unrolling needs a fixed number of steps"),
            ("precision=fp16", "expected 'variant': the kind 'litert' runs graphs unchanged"),
        ],
    )
    def test_shapes_and_precisions_it_has_not(self, bundle: Bundle, settings: str, message: str) -> None:
        with pytest.raises(Exception, match=message) as caught:
            TargetPlan(target_job(bundle, target="litert", settings=[settings]))
        assert type(caught.value).__module__ == "fer_edge.core.errors"

    def test_a_clip_graph(self, bundle: Bundle) -> None:
        with pytest.raises(InputError, match="expected none; LiteRT runs the encoder and a head"):
            TargetPlan(target_job(bundle, target="litert", clip=True))

    def test_without_the_package(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(module: str, **_: str) -> None:
            raise MissingPackageError(f"needs the package {module!r}")

        monkeypatch.setattr(target_module, "require", missing)
        with pytest.raises(MissingPackageError, match="'ai_edge_litert'"):
            TargetPlan(target_job(bundle, target="litert"))

    def test_files_that_differ_are_not_written(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from fer_edge.export import litert_operators

        monkeypatch.setitem(litert_operators._REDUCED, "ReduceMean", "SUM")
        with pytest.raises(GateError, match="outputs differ by up to"):
            export_target(bundle, target="litert", out=tmp_path / "files")
        assert not (tmp_path / "files").exists()

    @pytest.mark.parametrize(
        ("node", "weights", "message"),
        [
            (helper.make_node("Erf", ["x"], ["y"]), {}, "got Erf .*expected one of Add, AveragePool"),
            (helper.make_node("Softmax", ["x"], ["y"], axis=1), {}, "expected a Softmax over the last axis"),
            (
                helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
                {},
                "expected a pooling without padding",
            ),
            (
                helper.make_node("Conv", ["x", "w"], ["y"], group=2),
                {"w": np.ones((4, 2, 1, 1), np.float32)},
                "expected a 2-D convolution, plain or depthwise",
            ),
            (
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
                {"s": np.ones(4, np.float32), "z": np.zeros(4, np.int8)},
                "expected one scale for the whole tensor",
            ),
            (
                helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["y"]),
                {"start": np.array([0]), "end": np.array([4]), "axis": np.array([1]), "step": np.array([2])},
                "expected constant bounds of one axis and a step of 1 or -1",
            ),
            (
                helper.make_node("Gather", ["x", "places"], ["y"], axis=1),
                {"places": np.array([0, 2])},
                "expected one constant place",
            ),
            (
                helper.make_node("Gemm", ["x2", "w"], ["y"], transA=1),
                {"w": np.ones((4, 4), np.float32), "x2": np.ones((4, 4), np.float32)},
                "expected constant weights and an untransposed input",
            ),
        ],
    )
    def test_what_it_cannot_write(self, node: Any, weights: dict[str, Any], message: str) -> None:
        nodes, output = [node], node.output[0]
        if node.op_type == "QuantizeLinear":
            nodes, output = [node, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1)], "y"
        with pytest.raises(InputError, match=message):
            converted(model_of(nodes, {"x": [1, 4, 6, 6]}, weights, [output]))

    def test_open_dimensions(self) -> None:
        model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 4]}, {}, ["y"])
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        with pytest.raises(InputError, match="expected fixed dimensions"):
            converted(model)


class TestSession:
    @pytest.mark.parametrize("reading", ["fer2013", "crowd"])
    @pytest.mark.parametrize("steps", [1, 3, WINDOW])
    def test_runs_a_bundle_as_onnx_runtime_does(self, bundle: Bundle, engines: Path, reading: Any, steps: int) -> None:
        frames = miniature_frames(steps, seed=4)
        results = []
        for provider, folder in (("cpu", None), ("litert", engines)):
            with Network.open(bundle, provider=provider, engines=folder, reading=reading, threads=2) as network:
                assert network.info.provider == provider
                features = network.encode(frames)
                windows = np.stack([features, features[::-1]])
                if provider == "cpu" and steps == 3:  # as a window that is not full: it repeats its oldest feature
                    windows = np.concatenate([windows[:, :1], windows], axis=1)
                results.append(network.probabilities_with_attention(windows, np.array([steps, 1])))
        (wanted, weights), (got, found) = results
        np.testing.assert_allclose(got, wanted, atol=1e-4)
        np.testing.assert_allclose(found[:, -1], weights[:, -1], atol=1e-4)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)

    def test_files_of_another_version_are_replaced(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_missing(bundle, ["fp32"], folder=tmp_path)
        monkeypatch.setattr("fer_edge.export.litert_cache.__version__", "0.0.1")
        assert len(write_missing(bundle, ["fp32"], folder=tmp_path)) == 3

    def test_finds_the_files_of_a_target_by_their_graphs(self, bundle: Bundle, exported: Path) -> None:
        with Network.open(bundle, provider="litert", engines=exported) as network:
            assert network.info.provider_version.startswith("ai-edge-litert 2")
        named = exported / "encoder.tflite"
        assert find_litert(named, graph_sha256=bundle.variant("fp32").encoder.sha256) == named.read_bytes()

    def test_a_graph_without_a_file_is_refused_with_the_command(self, bundle: Bundle, tmp_path: Path) -> None:
        with pytest.raises(SessionError, match="expected one; make it with: fer-edge export BUNDLE --target litert"):
            open_session(bundle.graph_bytes("fp32", "encoder"), provider="litert", engines=tmp_path)

    def test_the_file_of_another_graph_is_refused(self, bundle: Bundle, exported: Path) -> None:
        with pytest.raises(SessionError, match=r"got no \.tflite file of the graph"):
            find_litert(exported / "head.tflite", graph_sha256=bundle.variant("fp32").encoder.sha256)

    @pytest.mark.parametrize("cut", [0, 100, 5000])
    def test_a_damaged_file_is_refused(self, exported: Path, cut: int) -> None:
        with pytest.raises(SessionError, match="LiteRT refuses the file"):
            LiteRtSession((exported / "head.tflite").read_bytes()[:cut], threads=1)

    def test_feeds_are_checked_first(self, exported: Path) -> None:
        session = LiteRtSession((exported / "head.tflite").read_bytes(), threads=1)
        features, one = np.zeros((1, 2, FEATURES), np.float32), np.ones(1, np.int64)
        with pytest.raises(InputError, match=r"got shape \(1, 2, 24\), but the engine was built for.*1 or 4"):
            session.run({"features": features, "length": one})
        session.close()
        with pytest.raises(SessionError, match="after close"):
            session.run({"features": features[:, :1], "length": one})

    def test_auto_takes_int8_first(self) -> None:
        assert choose_variant(Bundle.open("nano").manifest, provider="litert").startswith("int8")

    def test_the_parity_chain_has_it_like_any_engine(self, bundle: Bundle) -> None:
        assert "litert" in available_engines()[0]
        report = check_parity(
            bundle, miniature_frames(16, seed=6), described="noise", engines={"litert": engine_opener("litert")}
        )
        [stage] = [each for each in report.stages if each.stage == "fp32 in litert"]
        assert stage.passed
        assert stage.provider == "litert"

    def test_bench_converts_what_is_missing(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "cache"))
        result = tmp_path / "bench.json"
        done = CliRunner().invoke(
            main, ["bench", str(bundle.path), "--provider", "litert", "--quick", "--rounds", "1", "--json", str(result)]
        )
        assert done.exit_code == 0, done.output
        [variant] = json.loads(result.read_text("utf-8"))["variants"]
        assert (variant["provider"], variant["x"] > 0) == ("litert", True)
        assert len(list((tmp_path / "cache" / "engines").glob("*.tflite"))) == 3

    def test_run_rebuilds_on_demand(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "cache"))
        face = np.full((64, 64), 128, np.uint8)
        cv2.imwrite(str(tmp_path / "face.png"), face)
        command = [
            "run",
            str(bundle.path),
            "--provider",
            "litert",
            "--source",
            str(tmp_path / "face.png"),
            "--whole-frame",
        ]
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code == 1
        assert "run with --rebuild" in " ".join(refused.output.split())
        assert CliRunner().invoke(main, [*command, "--rebuild"]).exit_code == 0

    def test_any_graph_runs_for_a_comparison(self, bundle: Bundle) -> None:
        frames = miniature_frames(3, seed=5)
        graph = bundle.graph_bytes("fp32", "encoder")
        with litert_run(graph) as run, open_session(graph) as session:
            for name, expected in session.run({"frames": frames}).items():
                np.testing.assert_allclose(run({"frames": frames})[name], expected, atol=1e-4)
