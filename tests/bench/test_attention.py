"""Mean attention over a data set: the averages are right, and the figure shows no face."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_bundle, tiny_frames

from fer_edge.bench.attention import AttentionReport, average_attention
from fer_edge.bench.attention_plot import attention_figure
from fer_edge.cli import main
from fer_edge.core.errors import DataError, InputError
from fer_edge.core.label_sets import CKPLUS_EMOTIONS
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import Dataset, StillSet
from fer_edge.runtime.inference import Network

FIGURE = Path(__file__).parents[2] / "bench" / "results" / "attention"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture(scope="module")
def network(bundle: Path) -> Iterator[Network]:
    with Network.open(bundle) as opened:
        yield opened


def dataset(count: int = 12, expressions: tuple[str, ...] = EXPRESSIONS) -> Dataset:
    labels = np.arange(count) % 3
    stills = StillSet(
        name="val", images=tiny_frames(count), labels=labels, rows=np.arange(count), expressions=expressions
    )
    return Dataset(name="noise", source="noise", layout="memory", splits={"val": stills}, roles={"choose": "val"})


@pytest.fixture(scope="module")
def report(network: Network) -> AttentionReport:
    return average_attention(network, dataset(), occlusion=True)


def test_means_are_those_of_the_graphs_weights(network: Network, report: AttentionReport) -> None:
    attention = network.encode_with_attention(tiny_frames(12))[1].reshape(12, 2, 2)
    assert list(report.expressions) == ["angry", "disgust", "fear"]
    np.testing.assert_allclose(report.everything, attention.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(report.expressions["fear"].attention, attention[2::3].mean(axis=0), atol=1e-5)
    assert report.expressions["fear"].n == 4
    assert report.even == 0.25
    assert 0 < report.entropy["p5"] <= report.entropy["mean"] <= 1


def test_the_average_face_is_looked_at_in_memory(network: Network, report: AttentionReport) -> None:
    mean = np.round(tiny_frames(12)[::3].astype(float).mean(axis=0)).astype(np.uint8)
    expected = network.encode_with_attention(mean[None])[1].reshape(2, 2)
    np.testing.assert_allclose(report.expressions["angry"].average_face.attention, expected, atol=1e-5)


def test_faithfulness_is_set_against_another_faces_attention(report: AttentionReport) -> None:
    assert report.faithfulness is not None
    assert report.faithfulness.correlation != report.faithfulness.correlation_of_mismatched
    assert 0 <= report.faithfulness.same_peak <= 1


def test_without_covering(network: Network) -> None:
    plain = average_attention(network, dataset())
    assert plain.faithfulness is None
    assert plain.expressions["angry"].occlusion_drop is None


def test_other_labels_are_refused(network: Network) -> None:
    with pytest.raises(DataError, match="expected those of"):
        average_attention(network, dataset(expressions=CKPLUS_EMOTIONS))


def test_figure_and_json_from_the_command_line(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure, record = tmp_path / "mean.png", tmp_path / "mean.json"
    arguments = ["explain", str(bundle), "--data", "synthetic:28", "--out", str(figure), "--json", str(record)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "label of the average face" in done.stdout
    assert cv2.imread(str(figure)) is not None
    held = json.loads(record.read_text())
    assert held["grid"] == 2
    assert set(held["expressions"]) == set(EXPRESSIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean.json", "mean.png"]


def test_the_figure_depends_on_the_report_alone(report: AttentionReport, tmp_path: Path) -> None:
    """So no pixel of a face can be in it: the report has none."""
    pytest.importorskip("matplotlib")
    for name in ("first.png", "second.png"):
        attention_figure(report, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with pytest.raises(InputError, match=r"got the ending '.jpg', expected one of .png, .svg, .pdf"):
        attention_figure(report, tmp_path / "mean.jpg")


def test_the_committed_maps_are_of_the_shipped_bundle() -> None:
    from fer_edge.core.bundle import Bundle

    held = json.loads((FIGURE / "base.json").read_text())
    shipped = Bundle.open("base")
    assert held["info"]["variant"] in {variant.name for variant in shipped.manifest.variants}
    assert held["data"]["split"] == "PublicTest"
    assert held["data"]["n"] == sum(each["n"] for each in held["expressions"].values()) == 3589
    readme = " ".join((FIGURE.parents[1] / "README.md").read_text("utf-8").split())
    faith, entropy = held["faithfulness"], held["entropy"]
    for said in (
        f"entropy is {entropy['mean']:.2f} of that of even weights",
        f"{held['everything'][1][1] + held['everything'][2][1]:.0%} of it",
        f"{faith['correlation']:+.2f}",
        f"{faith['correlation_of_mismatched']:+.2f}",
        f"{faith['same_peak']:.0%} of the faces",
        f"{faith['same_peak_of_mismatched']:.0%}",
    ):
        assert said.replace("%", " %") in readme, said
    weights = [each["attention"] for each in held["expressions"].values()]
    np.testing.assert_allclose(np.sum(weights, axis=(1, 2)), 1, atol=1e-4)
