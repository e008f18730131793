"""Bundles to targets: what is prepared, planned, refused and written; nothing here needs torch or a GPU."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from miniature import miniature_bundle
from onnx import TensorProto

from fer_edge.cli import main
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import BundleError, GateError, MissingPackageError, OutputError, SessionError
from fer_edge.core.machine import GpuReport
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.core.verify import verify_bundle
from fer_edge.export import graph_passes
from fer_edge.export import target as target_module
from fer_edge.export.job import target_job
from fer_edge.export.preflight import ROWS, check_bundle
from fer_edge.export.selection import choose_target
from fer_edge.export.target import TargetPlan, export_target
from fer_edge.graph.graph import Graph

SMALL = ("shapes.frames.max=2", "shapes.windows.max=2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return miniature_bundle(tmp_path_factory.mktemp("bundles") / "miniature")


def run_command(*arguments: object, command: str = "export") -> tuple[int, str]:
    done = CliRunner().invoke(main, [command, *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def float_types(graph: bytes) -> set[int]:
    return {tensor.data_type for tensor in onnx.load_from_string(graph).graph.initializer} & {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    }


class TestPrepared:
    def test_a_cpus_graphs_are_the_bundles_own(self, bundle: Bundle) -> None:
        job = target_job(bundle, target="cpu-x86")
        assert job.graphs["encoder"] == bundle.graph_bytes("fp32", "encoder")
        assert (job.passes, job.precision, job.computes_in) == ((), "variant", "fp32")
        plan = TargetPlan(job)
        assert (plan.errors, plan.graphs) == ([], None)

    @pytest.mark.parametrize("target", ["jetson-orin-nano", "desktop-tensorrt", "rtx-desktop", "jetpack5"])
    def test_tensorrt_gets_fixed_windows_and_no_loops(self, target: str, bundle: Bundle) -> None:
        job = target_job(bundle, target=target, variant="fp32", settings=SMALL)
        assert job.precision == "fp16"
        kinds = {node.op_type for part in job.graphs.values() for node in onnx.load_from_string(part).graph.node}
        assert not kinds & {"LSTM", "Loop", "Scan", "Shape", "Range"}
        assert job.shapes["head"]["features"].min == (1, 4, 24)
        head = onnx.load_from_string(job.graphs["head"]).graph.input[0].type.tensor_type.shape.dim
        assert [size.dim_param or size.dim_value for size in head] == ["B", 4, 24]
        parity = TargetPlan(job).graphs
        assert parity is not None
        assert parity.max_abs_diff <= (0.02 if target != "jetpack5" else 1e-3)

    def test_fp16_stands_in_the_graph_for_strong_typing_and_in_a_list_of_layers_before_it(self, bundle: Bundle) -> None:
        typed = target_job(bundle, target="jetson-orin-nano", variant="fp32")
        assert float_types(typed.graphs["encoder"]) == {TensorProto.FLOAT, TensorProto.FLOAT16}
        assert typed.keep_float32["encoder"] == ()
        weak = target_job(bundle, target="jetpack5", variant="fp32")
        assert float_types(weak.graphs["encoder"]) == {TensorProto.FLOAT}
        assert any("/cell/" in name for name in weak.keep_float32["encoder"])

    def test_a_setting_changes_the_recipe(self, bundle: Bundle) -> None:
        settings = ["shapes.frames.max=1", "lstm='loop'", "precision='fp32'"]
        job = target_job(bundle, target="jetson-orin-nano", settings=settings)
        assert job.shapes["encoder"]["frames"].max == (1, 16, 16)
        assert "LSTM" in {node.op_type for node in onnx.load_from_string(job.graphs["encoder"]).graph.node}
        assert job.precision == "fp32"

    def test_the_shipped_signed_variant_is_what_int8_takes(self) -> None:
        job = target_job(Bundle.open("base"), target="jetson-orin-nano", settings=SMALL)
        assert (job.variant, job.precision) == ("int8-trt", "int8-fp16")

    @pytest.mark.parametrize("name", zoo_names())
    def test_the_shipped_bundles_bear_fp16_around_int8(self, name: str) -> None:
        """FP16 may carry a value over the edge of an INT8 step: half of what is let pass there is enough for them."""
        job = target_job(Bundle.open(name), target="rtx-desktop", variant="int8-trt", settings=SMALL)
        assert job.precision == "int8-fp16"
        parity = TargetPlan(job).graphs
        assert parity is not None
        assert parity.max_abs_diff <= 0.05
        assert parity.label_agreement == 1.0

    def test_a_pass_that_changes_what_is_computed_is_caught(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        honest = graph_passes._rewrite

        def wrong(graph: Graph, *rest: object, **named: object) -> list[str]:
            done = honest(graph, *rest, **named)  # type: ignore[arg-type]
            model = graph.to_model()
            for tensor in model.graph.initializer:
                if "input_bias" in tensor.name:
                    values = onnx.numpy_helper.to_array(tensor)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(values + np.ones_like(values), tensor.name))
            graph.reset(model)
            return done

        monkeypatch.setattr(graph_passes, "_rewrite", wrong)
        with pytest.raises(GateError, match=r"the graphs of fp32 after .*LSTM unrolled.*nothing was written"):
            export_target(bundle, target="jetpack5", variant="fp32", settings=SMALL, out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        plan = TargetPlan(target_job(bundle, target="jetpack5", variant="fp32", settings=SMALL))
        assert "outputs differ" in plan.refusals[-1]


class TestRefusals:
    def test_a_variant_that_is_not_there(self, bundle: Bundle, tmp_path: Path) -> None:
        for target in ("jetson-orin-nano", "rtx-desktop"):
            with pytest.raises(BundleError, match=r"has no variant 'int8(-trt)?'; it has fp32"):
                export_target(bundle, target=target, variant="int8-trt", out=tmp_path / "out")
        code, said = run_command(bundle.path, "--target", "jetson-orin-nano", "--dry-run")
        assert (code, "has no variant 'int8-trt'" in said) == (1, True)

    def test_uint8_is_stopped_before_tensorrt_sees_it(self, tmp_path: Path) -> None:
        with pytest.raises(GateError, match=r"would refuse int8: encoder QuantizeLinear.*saturate.*fer-edge check"):
            export_target(Bundle.open("base"), target="jetpack5", variant="int8", out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_holds_something(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("kept")
        for overwrite in (False, True):
            for out in (tmp_path, bundle.path):
                with pytest.raises(OutputError, match=r"no target.json, expected a target's folder"):
                    export_target(bundle, target="cpu-x86", out=out, overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        assert verify_bundle(bundle.path).ok

    def test_a_targets_folder_is_replaced_when_told(self, bundle: Bundle, tmp_path: Path) -> None:
        out = tmp_path / "out"
        export_target(bundle, target="cpu-x86", out=out)
        (out / "old").write_text("")
        with pytest.raises(OutputError, match=r"already holds files.*--overwrite"):
            export_target(bundle, target="cpu-x86", out=out)
        export_target(bundle, target="cpu-x86", out=out, overwrite=True)
        assert not (out / "old").exists()
        assert (out / "target.json").is_file()

    def test_a_full_disk(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(target_module, "write_json", full)
        with pytest.raises(OutputError, match="No space left on device"):
            export_target(bundle, target="cpu-x86", out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("full", [True, False])
    def test_an_engine_that_blames_the_graph_for_a_full_disk(
        self, full: bool, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime writes its file itself, and calls any failure of that a failure of the graph."""
        import onnxruntime

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("INVALID_PROTOBUF : Protobuf serialization failed.")

        def write(path: Path, data: bytes) -> None:
            if full:
                raise OutputError(f"cannot write {path}: No space left on device")
            path.write_bytes(data)

        monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
        monkeypatch.setattr("fer_edge.export.backend.write_atomic", write)
        wanted, words = (OutputError, "No space left") if full else (SessionError, "ONNX Runtime refuses encoder")
        with pytest.raises(wanted, match=words):
            export_target(bundle, target="cpu-x86", out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written(self, bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        code, said = run_command(bundle.path, "--target", "cpu-x86", "--out", tmp_path / "file" / "inside")
        assert code == 1
        assert "cannot write" in said

    def test_a_damaged_bundle(self, tmp_path: Path) -> None:
        damaged = miniature_bundle(tmp_path / "damaged")
        graph = next((damaged.path / "graphs").iterdir())
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 0xFF
        graph.write_bytes(data)
        for command, arguments in (("export", ["--target", "cpu-x86", "--out", tmp_path / "out"]), ("check", [])):
            code, said = run_command(damaged.path, *arguments, command=command)
            assert code == 1
            assert "was damaged or changed" in said
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--target", "jetson-orin-nanno"], 1, "did you mean jetson-orin-nano or"),
            (["--target", "cpu-x86", "--set", "opsett=3"], 1, "opsett: unknown field; did you mean 'opset'?"),
            (["--target", "cpu-x86", "--set", "opset"], 1, "expected key=value"),
            (["--target", "no-such.toml"], 1, "cannot read the recipe"),
            ([], 2, "give --target"),
            (["--out", "never", "--dry-run"], 2, "need --target"),
            (["--out", "never", "--variant", "int8"], 2, "need --target"),
        ],
    )
    def test_arguments(self, arguments: list[str], code: int, words: str, bundle: Bundle) -> None:
        got, said = run_command(bundle.path, *arguments)
        assert (got, words in said) == (code, True), said


class TestDryRun:
    def test_it_writes_nothing(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        code, said = run_command(bundle.path, "--target", "jetpack5", "--variant", "fp32", "--dry-run")
        assert code == 0
        for words in (
            "encoder.onnx",
            "build-engines.sh",
            "LSTM unrolled",
            "(4, 16, 16)",
            "would be written; nothing was",
        ):
            assert words in said
        assert list(tmp_path.iterdir()) == []

    def test_it_says_why_not(self, bundle: Bundle) -> None:
        """TensorRT of a Jetson is not here; and the uint8 graphs would be refused where it is."""
        small = ("--set", SMALL[0], "--set", SMALL[1])
        code, said = run_command(
            "base", "--target", "jetson-orin-nano", "--variant", "int8", "--dry-run", "--json", *small
        )
        plan = json.loads(said)
        assert (code, plan["refused"]) == (1, True)
        assert any("uint8 values" in refusal for refusal in plan["refusals"])
        assert {finding["rule"] for finding in plan["findings"]} == {"quantizer-signed"}
        assert plan["shapes"]["encoder"]["frames"]["max"] == [2, 48, 48]
        assert [file["part"] for file in plan["files"]] == ["encoder", "head", "crowd"]


class TestCheck:
    def test_the_shipped_bundle_by_variant_and_row(self) -> None:
        verdicts = {(v.variant, v.target): v.accepted for v in check_bundle(Bundle.open("base"))}
        assert verdicts == {
            (variant, row): variant != "int8" and row != "dla"
            for variant in ("fp32", "int8", "int8-trt")
            for row in ROWS
        }

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--target", "10.3", "--variant", "int8-trt"], 0),
            (["--target", "10.3", "--variant", "int8"], 1),
            (["--target", "rtx-desktop"], 0),
            (["--target", "dla", "--variant", "fp32"], 1),
            (["--target", "rtx-desktop", "--set", "precision='fp32'"], 1),
        ],
    )
    def test_the_exit_code_is_the_verdict(self, arguments: list[str], code: int) -> None:
        got, said = run_command("base", *arguments, "--json", command="check")
        verdict = json.loads(said)
        assert (got, verdict["accepted"]) == (code, code == 0)
        assert all(finding["node"] and finding["cure"] for each in verdict["verdicts"] for finding in each["findings"])

    def test_an_unknown_target(self) -> None:
        code, said = run_command("base", "--target", "10.4", command="check")
        assert (code, "'10.4'" in said, "10.3" in said) == (1, True, True), said
        code, said = run_command("base", "--target", "orin", "--out", "out")
        assert code == 1
        assert "did you mean" in said
        assert "triton" not in said.rpartition("did you mean")[2]

    def test_a_summary_has_a_line_per_rule(self) -> None:
        _, said = run_command("base", command="check")
        _, whole = run_command("base", "--json", command="check")
        rules = {(each["severity"], each["rule"]) for one in json.loads(whole)["verdicts"] for each in one["findings"]}
        for severity, rule in rules:
            assert len([line for line in said.splitlines() if line.startswith(f"{severity} {rule} in")]) == 1
        assert len(said.splitlines()) < 30

    def test_a_finding_that_targets_share_is_one_row(self) -> None:
        _, said = run_command("base", "--variant", "int8", "--verbose", command="check")
        verdicts = json.loads(run_command("base", "--variant", "int8", "--json", command="check")[1])["verdicts"]
        every = [each for verdict in verdicts for each in verdict["findings"]]
        found = {(each["part"], each["node"]) for each in every if each["rule"] == "quantizer-signed"}
        shared = [line for line in said.splitlines() if line.startswith("quantizer-signed")]
        assert len(shared) == len(found) > 10
        assert all("8.5, 8.6, 10.3, 10.13, 11, 11.4.1, rtx, dla" in line for line in shared)


def test_auto_is_an_engine_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_target("cpu") in ("cpu-x86", "cpu-arm")
    assert choose_target("auto", gpu=False) == choose_target("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert choose_target("auto", gpu=False) == "openvino"


@pytest.mark.parametrize(
    ("board", "capability", "installed", "expected"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", "8.7", {"tensorrt": "10.3"}, "jetson-orin-nano"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "8.7", {"tensorrt": "10.3"}, "jetson-orin-agx"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "11.0", {"tensorrt": "10.13"}, "jetson-thor"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "11.0", {"tensorrt": "11.4.1"}, "jetpack7-thor"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "8.7", {"tensorrt": "11.4.1"}, "jetpack7-orin-agx"),
        ("AMD EPYC", "8.9", {"tensorrt": "11.4.1"}, "desktop-tensorrt"),
        ("AMD EPYC", "8.9", {"tensorrt": "11", "tensorrt_rtx": "rtx"}, "desktop-tensorrt"),
        ("AMD EPYC", "8.9", {"tensorrt_rtx": "rtx"}, "rtx-desktop"),
        ("AMD EPYC", "9.0", {"tensorrt_rtx": "rtx"}, None),  # Hopper, which TensorRT-RTX does not serve
        ("AMD EPYC", "8.9", {"tensorrt": "8.6"}, None),
    ],
)
def test_auto_finds_the_target_of_the_gpu_and_of_its_tensorrt(
    board: str, capability: str, installed: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(package: str) -> SimpleNamespace:
        if package not in installed:
            raise MissingPackageError(f"no {package}")
        return SimpleNamespace(flavour=FLAVOURS[installed[package]])

    gpu = GpuReport(name="GPU", compute_capability=capability, memory_bytes=1 << 30, cuda_driver="12.6")
    machine = SimpleNamespace(cpu=board, gpus=(gpu,))
    monkeypatch.setattr("fer_edge.export.selection.machine_report", lambda: machine)
    monkeypatch.setattr("fer_edge.runtime.tensorrt_library.load_tensorrt", load)
    assert choose_target("auto") == (expected or choose_target("auto", gpu=False))


def test_a_target_whose_provider_is_missing_is_refused_in_the_plan_too(bundle: Bundle, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    (refusal,) = TargetPlan(target_job(bundle, target="cuda")).refusals
    assert "needs CUDAExecutionProvider" in refusal
    with pytest.raises(SessionError, match="needs CUDAExecutionProvider"):
        export_target(bundle, target="cuda", out=tmp_path / "cuda")
    assert list(tmp_path.iterdir()) == []


def test_the_targets_are_listed() -> None:
    code, said = run_command("--json", command="targets")
    assert code == 0
    assert {"cpu-x86", "jetpack5", "rtx-desktop"} <= set(json.loads(said))


def test_torch_is_not_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    """With torch blocked, the target whose graphs go through every pass."""
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom fer_edge.cli import main\n"
        f"main(['export', {str(bundle.path)!r}, '--target', 'jetpack5', '--variant', 'fp32', '--out', "
        f"{str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "target.json").read_text())
    assert {file["name"] for file in report["files"]} == {"encoder.onnx", "head.onnx", "build-engines.sh"}
    assert report["graphs"]["max_abs_diff"] <= 1e-3
