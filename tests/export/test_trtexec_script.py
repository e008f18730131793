"""The folder that a Jetson builds its engines from: its script run with a stand-in for trtexec."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from miniature import miniature_bundle

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import RecipeError
from fer_edge.export.job import target_job
from fer_edge.export.target import export_target

SMALL = ("shapes.frames.max=2", "shapes.windows.max=2")
FAKE_TRTEXEC = """\
#!/usr/bin/env bash
if [[ $1 == --help ]]; then
    echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec --help"
    [[ {version} != 10* ]] || echo "  --stronglyTyped  Create a strongly typed network"
    exit
fi
echo "$@" >>calls
for each in "$@"; do [[ $each != --saveEngine=* ]] || echo plan >"${{each#*=}}"; done
exit {status}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return miniature_bundle(tmp_path_factory.mktemp("bundles") / "miniature")


@pytest.fixture(scope="module")
def script_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jetpack5") / "edge"
    report = export_target(Bundle.open("base"), target="jetpack5", settings=SMALL, out=folder)
    assert (report.variant, report.precision) == ("int8-trt", "int8-fp16")
    assert report.parity is None
    assert report.not_run == "build-engines.sh builds the engines on the device"
    assert report.graphs is not None
    assert report.graphs.max_abs_diff <= 0.02
    return folder


class TestScript:
    def test_shellcheck_has_nothing_to_say(self, script_folder: Path) -> None:
        if not shutil.which("shellcheck"):
            pytest.skip("needs shellcheck: apt-get install shellcheck")
        done = subprocess.run(
            ["shellcheck", script_folder / "build-engines.sh"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout

    def test_the_graphs_are_what_the_oldest_parser_reads(self, script_folder: Path) -> None:
        for part in ("encoder", "head", "crowd"):
            graph = onnx.load(script_folder / f"{part}.onnx")
            assert graph.opset_import[0].version <= 17
            assert not {"LSTM", "Loop", "Scan"} & {node.op_type for node in graph.graph.node}

    def run_script(
        self, folder: Path, work: Path, *, version: str = "8502", status: int = 0
    ) -> tuple[int, str, list[str]]:
        shutil.copytree(folder, work, dirs_exist_ok=True)
        fake = work / "bin" / "trtexec"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(FAKE_TRTEXEC.format(version=version, status=status))
        fake.chmod(0o755)
        environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
        done = subprocess.run([work / "build-engines.sh"], env=environment, capture_output=True, text=True, check=False)
        calls = (work / "calls").read_text().splitlines() if (work / "calls").exists() else []
        return done.returncode, done.stderr + done.stdout, calls

    def test_it_builds_every_engine_with_the_flags_of_the_precision(self, script_folder: Path, tmp_path: Path) -> None:
        code, said, (encoder, head, crowd) = self.run_script(script_folder, tmp_path / "device")
        assert code == 0, said
        for flag in ("--fp16", "--int8", "--buildOnly", "--memPoolSize=workspace:512", "--precisionConstraints=obey"):
            assert flag in encoder.split()
        assert "--minShapes=frames:1x48x48 --optShapes=frames:1x48x48 --maxShapes=frames:2x48x48" in encoder
        width = Bundle.open("base").manifest.sequence.feature_size
        assert all(f"--maxShapes=features:2x16x{width},length:2" in each for each in (head, crowd))
        kept = encoder.split("--layerPrecisions=")[1].split()[0].split(",")
        assert "/normalise/InstanceNormalization/deviation:fp32" in kept
        assert "/attention/Softmax:fp32" in kept
        assert not any("Conv" in name or "Quantize" in name for name in kept)
        assert (tmp_path / "device" / "encoder.engine").read_text() == "plan\n"

    def test_an_engine_that_is_there_is_kept(self, script_folder: Path, tmp_path: Path) -> None:
        self.run_script(script_folder, tmp_path / "device")
        code, said, calls = self.run_script(script_folder, tmp_path / "device")
        assert (code, len(calls)) == (0, 3)
        assert "encoder.engine exists already" in said

    def test_a_build_that_fails_leaves_no_engine(self, script_folder: Path, tmp_path: Path) -> None:
        code, _, calls = self.run_script(script_folder, tmp_path / "device", status=1)
        assert (code, len(calls)) == (1, 1)
        assert list((tmp_path / "device").glob("*.engine*")) == []

    def test_another_version_is_refused(self, script_folder: Path, tmp_path: Path) -> None:
        code, said, calls = self.run_script(script_folder, tmp_path / "device", version="100300")
        assert (code, calls) == (1, [])
        assert "made for TensorRT 8.5, trtexec is TensorRT v100300" in said

    @pytest.mark.parametrize(
        ("flavour", "fitting", "other"),
        [("10.3", "101200", "101302"), ("10.13", "101402", "110400"), ("11", "110400", "100300")],
    )
    def test_precisions_stand_in_the_graph_where_the_builder_takes_them_from_there(
        self, bundle: Bundle, tmp_path: Path, flavour: str, fitting: str, other: str
    ) -> None:
        settings = [f"flavour='{flavour}'", "precision='fp16'"]
        export_target(bundle, target="jetpack5", settings=settings, out=tmp_path / "out")
        encoder = onnx.load(tmp_path / "out" / "encoder.onnx")
        casts = [each for node in encoder.graph.node if node.op_type == "Cast" for each in node.attribute]
        assert onnx.TensorProto.FLOAT16 in {each.i for each in casts}
        code, said, (flags, *_) = self.run_script(tmp_path / "out", tmp_path / "device", version=fitting)
        assert code == 0, said
        assert ("--stronglyTyped" in flags.split()) is (flavour != "11")
        assert not {"--fp16", "--int8", "--precisionConstraints=obey"} & set(flags.split())
        assert self.run_script(tmp_path / "out", tmp_path / "again", version=other)[0] == 1

    def test_rtx_has_no_trtexec(self, bundle: Bundle) -> None:
        with pytest.raises(RecipeError, match="flavour"):
            target_job(bundle, target="jetpack5", settings=["flavour='rtx'"])

    def test_fp32_asks_for_no_other_precision(self, bundle: Bundle, tmp_path: Path) -> None:
        export_target(bundle, target="jetpack5", settings=["precision='fp32'"], out=tmp_path / "fp32")
        script = (tmp_path / "fp32" / "build-engines.sh").read_text()
        assert "--fp16" not in script
        assert "--int8" not in script
