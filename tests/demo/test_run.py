from __future__ import annotations

import functools
import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_bundle, tiny_encoder, tiny_head, tiny_manifest, tiny_variant

from fer_edge.demo import run as demo
from fer_edge.bench import BenchReport, Timing
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.bundle import Bundle
from fer_edge.cli import main
from fer_edge.demo.report import DemoReport
from fer_edge.demo.run import DemoOptions, run_demo
from fer_edge.core.errors import BundleError, DataError, InputError, OutputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'fer-edge[report]'")

BRIEF = DemoOptions(
    timing=Timing(rounds=1, per_round=1, warm_up=0, batch=1, cold_starts=0),
    stills=14,
    clip_frames=5,
    clip_rate=5.0,
    clip_size=(200, 150),
)
FRAMES = BRIEF.clip_frames * len(EXPRESSIONS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Variants `fp32`, `int8` and, not to be shown, `int8-trt`."""
    graphs = [tiny_encoder().SerializeToString(), tiny_head().SerializeToString()]
    variants = [tiny_variant(name, *graphs) for name in ("fp32", "int8", "int8-trt")]
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    create_bundle(path, tiny_manifest(*variants), {sha256_bytes(graph): graph for graph in graphs})
    return path


@pytest.fixture(scope="module")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoReport, list[str]]:
    """The folder, the report and what was said along the way."""
    out, said = tmp_path_factory.mktemp("out") / "demo", []
    report = run_demo(
        [str(bundle)],
        out=out,
        data="synthetic:7",
        options=BRIEF,
        progress=lambda text, done, total: said.append(text),
    )
    return out, report, said


class TestWhatItLeaves:
    def test_every_output_and_nothing_else(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        out, _, _ = made
        names = {"report.html", "bench.html", "bench.json", "demo.json", "clip.webm", "faces.png", "targets"}
        assert {path.name for path in out.iterdir()} == names
        assert [path.name for path in out.parent.iterdir()] == ["demo"]
        assert (out / "targets" / "tiny" / "target.json").is_file()

    def test_measurements_of_fp32_and_int8(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        out, report, _ = made
        bench = BenchReport.read(out / "bench.json")
        assert bench == report.bench
        assert {variant.name for variant in bench.variants} == {"fp32", "int8"}
        assert bench.data is not None
        assert [each.variant for each in report.synthetic] == ["fp32", "int8"]
        assert {each.report.n for each in report.synthetic} == {14}

    def test_the_clip(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        out, report, _ = made
        video = cv2.VideoCapture(str(out / "clip.webm"))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == report.clip.summary.frames == FRAMES
        video.release()
        assert report.clip.summary.frames_with_face >= 0.9 * FRAMES
        assert 0 <= report.clip.frames_agreeing <= report.clip.frames_judged <= FRAMES
        assert report.clip.summary.info.variant == "int8"

    def test_the_report_stands_alone(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        out, _, _ = made
        page = (out / "report.html").read_text()
        assert page.count("data:image/jpeg;base64,") == len(EXPRESSIONS)
        assert "http" not in page
        for name in ("bench.html", "clip.webm", "faces.png"):
            assert f'"{name}"' in page
        assert "<svg" in (out / "bench.html").read_text()

    def test_the_json_holds_it_all(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        out, report, _ = made
        stored = json.loads((out / "demo.json").read_text())
        assert stored == json.loads(json.dumps(encode(report)))
        assert stored["verified"][0]["ok"]
        assert stored["targets"][0]["bundle"] == "tiny"

    def test_each_step_is_told(self, made: tuple[Path, DemoReport, list[str]]) -> None:
        _, _, said = made
        text = "\n".join(said)
        for step in ("verifying", "exporting tiny", "timing", "recognising drawn faces: tiny/int8", "the clip"):
            assert step in text


class TestWhereItWrites:
    def test_an_earlier_demo_is_replaced(self, bundle: Path, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        out.mkdir()
        (out / "demo.json").write_text("{}")
        (out / "clip.webm").write_text("old")
        run_demo([str(bundle)], out=out, options=BRIEF, overwrite=True)
        assert len(json.loads((out / "demo.json").read_text())["synthetic"]) == 2

    @pytest.mark.parametrize("names", [["letters.txt"], ["demo.json", "letters.txt"]])
    def test_anything_else_stays(self, bundle: Path, tmp_path: Path, names: list[str]) -> None:
        for name in names:
            (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match="already holds files"):
            run_demo([str(bundle)], out=tmp_path, options=BRIEF)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


class TestWhatItRefuses:
    def test_a_damaged_bundle(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "bundle")
        graph = next((bundle.path / "graphs").iterdir())
        data = bytearray(graph.read_bytes())
        data[-1] ^= 1
        graph.write_bytes(data)
        with pytest.raises(BundleError, match=r"is not sound.*fer-edge verify"):
            run_demo([str(bundle.path)], out=tmp_path / "demo", options=BRIEF)
        assert not (tmp_path / "demo").exists()

    def test_no_bundle_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fer_edge.demo.run.zoo_names", tuple)
        monkeypatch.setattr("fer_edge.bench.benchmark.zoo_names", tuple)
        with pytest.raises(InputError, match="none is shipped"):
            run_demo(out=tmp_path / "demo", options=BRIEF)

    def test_a_failure_on_the_way_leaves_nothing(self, bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError):
            run_demo([str(bundle)], out=tmp_path / "demo", data=f"fer2013:{tmp_path}/none", options=BRIEF)
        assert list(tmp_path.iterdir()) == []


class TestCommand:
    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["demo", *map(str, arguments)])

    def test_tables_on_stdout_and_files_on_stderr(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("FER_EDGE_DATA", raising=False)
        monkeypatch.setattr(demo, "run_demo", functools.partial(run_demo, options=BRIEF))
        result = self.run(bundle, "--out", tmp_path / "demo")
        assert result.exit_code == 0, result.output
        assert "tiny/int8" in result.stdout
        assert f"written: {tmp_path / 'demo' / 'report.html'}" in result.stderr

    @pytest.mark.parametrize(
        ("stated", "arguments", "expected"),
        [
            (None, (), None),
            ("/faces", (), "fer2013:/faces"),
            ("/faces", ("--data", "folder:/own"), "folder:/own"),
        ],
    )
    def test_where_the_data_comes_from(
        self, stated: str | None, arguments: tuple[str, ...], expected: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        heard: list[object] = []

        def spy(bundles: tuple[str, ...], **rest: object) -> DemoReport:
            heard.append(rest["data"])
            raise InputError("enough")

        monkeypatch.setattr(demo, "run_demo", spy)
        monkeypatch.setenv("FER_EDGE_DATA", stated) if stated else monkeypatch.delenv("FER_EDGE_DATA", raising=False)
        monkeypatch.chdir(tmp_path)
        result = self.run(*arguments)
        assert (result.exit_code, result.stderr, heard) == (1, "error: enough\n", [expected])
