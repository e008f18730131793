"""What the sequence buys: the four methods say what they should, delays are counted right, a run is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_bundle

from fer_edge.bench import temporal_methods
from fer_edge.bench.clip_report import ClipReport, accuracy_table, delay_table
from fer_edge.bench.clips import SMOOTHINGS, ClipOptions, measure_delay, run_clips
from fer_edge.bench.temporal_methods import (
    AVERAGED,
    METHODS,
    SEQUENCE,
    SINGLE,
    SMOOTHED,
    ClipFeatures,
    constant_conditions,
    last_window,
    smooth,
    streamed,
)
from fer_edge.cli import main
from fer_edge.core.errors import InputError
from fer_edge.data import load_dataset
from fer_edge.data.clips import TRAINED, UNSEEN
from fer_edge.data.corruptions import LEVELS


class OldestWins:
    """A head that answers with its window's oldest real feature, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def logits(self, features: np.ndarray, length: np.ndarray) -> np.ndarray:
        self.seen.append((features, length))
        return features[np.arange(len(features)), features.shape[1] - length]


def clips_of(labels: list[list[int]], changed: list[int] | None = None) -> ClipFeatures:
    """Clips whose frames say plainly what they are: feature and probabilities are one-hot."""
    shown = np.array(labels)
    features = np.eye(7, dtype=np.float32)[shown]
    ends = np.full(len(shown), shown.shape[1]) if changed is None else np.array(changed)
    return ClipFeatures(features=features, singles=features, stills=shown, changed=ends)


class TestMethods:
    def test_at_the_end_of_a_window(self) -> None:
        head = OldestWins()
        found = last_window(head, clips_of([[5, 0, 0, 0, 1]]), 4, 0.3)  # type: ignore[arg-type]
        assert {method: labels.tolist() for method, labels in found.items()} == {
            SINGLE: [1],
            AVERAGED: [0],
            SMOOTHED: [1],
            SEQUENCE: [0],
        }
        assert last_window(head, clips_of([[5, 0, 0, 0, 1]]), 1, 0.3)[AVERAGED].tolist() == [1]  # type: ignore[arg-type]

    def test_along_a_stream(self) -> None:
        head = OldestWins()
        found = streamed(head, clips_of([[0, 0, 0, 1, 1, 1]]), 3, 0.6)  # type: ignore[arg-type]
        assert found[SINGLE].tolist() == [[0, 0, 0, 1, 1, 1]]
        assert found[AVERAGED].tolist() == [[0, 0, 0, 0, 1, 1]]
        assert found[SMOOTHED].tolist() == [[0, 0, 0, 0, 1, 1]]
        assert found[SEQUENCE].tolist() == [[0, 0, 0, 0, 0, 1]]
        assert [length.tolist() for _, length in head.seen] == [[1], [2], [3], [3], [3], [3]]
        assert head.seen[0][0].argmax(axis=2).tolist() == [[0, 0, 0]], "the oldest is repeated in front"

    def test_smoothing_begins_with_the_first_frame(self) -> None:
        singles = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]], np.float32)
        assert np.allclose(smooth(singles, 0.5), [[[1, 0], [0.5, 0.5], [0.25, 0.75]]])
        assert np.array_equal(smooth(singles, 0.0), singles)


class TestDelays:
    def test_are_counted_from_the_first_new_frame(self) -> None:
        # The second clip's new expression is never seen; the third is misread before the change: both are left out.
        labels = [[0] * 4 + [1] * 5, [0] * 4 + [2] * 5, [0] * 4 + [3] * 5]
        clips = clips_of(labels, changed=[4, 4, 4])
        blind = clips.singles.copy()
        blind[1] = np.eye(7, dtype=np.float32)[0]
        blind[2, 3] = np.eye(7, dtype=np.float32)[3]
        clips = ClipFeatures(features=blind, singles=blind, stills=np.array(labels), changed=clips.changed)

        class Network(OldestWins):
            window = 3

        network: Any = Network()
        result = measure_delay(network, clips, np.arange(7), name="clean", smoothing=0.6)
        assert (result.clips, result.compared) == (3, 1)
        assert {method: delay.median for method, delay in result.methods.items()} == {
            SINGLE: 0,
            AVERAGED: 1,
            SMOOTHED: 1,
            SEQUENCE: 2,
        }
        assert all(delay.never == pytest.approx(1 / 3) for delay in result.methods.values())
        assert result.methods[SINGLE].right > result.methods[SEQUENCE].right


def test_every_corruption_is_judged_at_every_level() -> None:
    conditions = [(each.name, each.level, each.family) for each in constant_conditions(16)]
    assert conditions[0] == ("clean", None, "clean")
    assert set(conditions[1:]) == {
        (name, level, family)
        for family, names in (("trained", TRAINED), ("unseen", UNSEEN))
        for name in names
        for level in LEVELS
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ClipReport:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporal_methods, "LEVELS", (2,))
        patch.setattr(temporal_methods, "TRAINED", ("noise",))
        patch.setattr(temporal_methods, "UNSEEN", ("salt_and_pepper",))
        return run_clips(
            bundle, load_dataset("synthetic:300@3"), options=ClipOptions(clips=30, command="fer-edge clips tiny")
        )


class TestARun:
    def test_says_what_was_done(self, report: ClipReport, tmp_path: Path) -> None:
        assert (report.clips, report.window, report.variant) == (30, 4, "fp32")
        assert report.smoothing_chosen
        assert report.smoothing in SMOOTHINGS
        assert [each.name for each in report.conditions] == ["clean", "noise", "salt_and_pepper"]
        assert [each.name for each in report.delays] == ["clean", "mixed"]
        for each in report.conditions:
            assert set(each.top1) == set(METHODS)
            assert len({each.top1[method]["1"] for method in METHODS}) == 1, "with one frame all are the same"
        mean = np.mean([each.top1[SEQUENCE]["4"] for each in report.conditions])
        assert report.pooled[-1].top1[SEQUENCE] == pytest.approx(mean)
        report.write(tmp_path / "report.json")
        assert ClipReport.read(tmp_path / "report.json") == report

    def test_is_drawn_as_tables(self, report: ClipReport) -> None:
        accuracy, delay = accuracy_table(report), delay_table(report)
        assert [row[0] for row in accuracy.rows][:3] == ["clean", "noise 2", "salt and pepper 2 †"]
        assert all(len(row) == len(accuracy.columns) for row in accuracy.rows)
        assert all(len(row) == len(delay.columns) for row in delay.rows)
        assert len(delay.rows) == 8

    def test_the_constant_is_never_chosen_on_what_is_reported(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "tiny")
        with pytest.raises(InputError, match="give the constant it names by --smoothing"):
            run_clips(bundle, load_dataset("synthetic:300@3"), options=ClipOptions(split="report"))


def test_the_command_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal_methods, "LEVELS", (3,))
    monkeypatch.setattr(temporal_methods, "TRAINED", ("compression",))
    monkeypatch.setattr(temporal_methods, "UNSEEN", ())
    bundle = tiny_bundle(tmp_path / "tiny")
    files = [tmp_path / "out" / name for name in ("clips.json", "clips.md")]
    given = ["--json", files[0], "--markdown", files[1], "--clips", "20"]
    result = CliRunner().invoke(main, ["clips", str(bundle.path), "--data", "synthetic:300@3", *map(str, given)])
    assert result.exit_code == 0, result.output
    assert "compression 3" in result.stdout
    assert json.loads(files[0].read_text())["bundle"] == "tiny"
    assert "| compression 3 |" in files[1].read_text()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["clips", str(tmp_path), "--data", "synthetic:300"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
