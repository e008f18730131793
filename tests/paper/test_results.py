"""A run's file: what goes in comes out, nothing is executed, and a broken file says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_edge.core.errors import InputError, OutputError
from fer_edge.paper.results import RunResult, SplitPredictions, run_path


def predictions(rows: int = 40, **changed: Any) -> SplitPredictions:
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "split": "PublicTest",
        "labels": rng.integers(0, 7, rows),
        "probabilities": rng.dirichlet(np.ones(7), rows),
        "leaked": rng.random(rows) < 0.1,
    }
    return SplitPredictions(**{**given, **changed})


def run(**changed: Any) -> RunResult:
    given: dict[str, Any] = {
        "system": "complete",
        "seed": 2,
        "epochs": 8,
        "seconds": 61.5,
        "parameters": 400_000,
        "macs": 12_000_000,
        "choose": predictions(),
        "report": predictions(30, split="PrivateTest"),
        "settings": {"image_size": 48, "recipe": {"rate": 0.001}},
    }
    return RunResult(**{**given, **changed})


class TestRunFile:
    def test_what_goes_in_comes_out(self, tmp_path: Path) -> None:
        before, path = run(), run_path(tmp_path, system="complete", seed=2)
        before.write(path)
        after = RunResult.read(path)
        for name in ("system", "seed", "epochs", "seconds", "parameters", "macs", "settings"):
            assert getattr(after, name) == getattr(before, name)
        for part in ("choose", "report"):
            old, new = getattr(before, part), getattr(after, part)
            assert (new.split, new.dataset, new.classes) == (old.split, old.dataset, old.classes)
            for name in ("labels", "probabilities", "leaked"):
                assert getattr(new, name).dtype == getattr(old, name).dtype
                np.testing.assert_array_equal(getattr(new, name), getattr(old, name))

    def test_a_split_that_was_not_looked_at_stays_absent(self, tmp_path: Path) -> None:
        run(report=None, macs=None).write(tmp_path / "run.npz")
        after = RunResult.read(tmp_path / "run.npz")
        assert (after.report, after.macs) == (None, None)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
    def test_a_torn_file_says_what_to_do(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "run.npz"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"run\.npz: not a run.*remove it"):
            RunResult.read(path)

    def test_runs_without_moving_average_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "run.npz"
        run().write(path)
        with np.load(path) as held:
            arrays = {name: held[name] for name in held.files}
        facts = json.loads(arrays["facts"].tobytes()) | {"schema": 1}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        np.savez(path, **arrays)
        with pytest.raises(InputError, match="schema: got 1, expected 3"):
            RunResult.read(path)

    def test_pickles_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "run.npz", facts=np.array([{"schema": 1}], dtype=object))
        with pytest.raises(InputError, match="not a run"):
            RunResult.read(tmp_path / "run.npz")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot read"):
            RunResult.read(tmp_path / "run.npz")

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            run().write(tmp_path / "file" / "run.npz")


class TestSplitPredictions:
    def test_other_number_types_are_converted(self) -> None:
        made = predictions(labels=np.arange(40, dtype=np.int16) % 7)
        assert (made.labels.dtype, made.probabilities.dtype) == (np.int64, np.float32)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"labels": np.full(40, 7)}, r"labels: got '7\.\.7', expected 0\.\.6"),
            ({"labels": np.zeros(40)}, "integers"),
            ({"labels": np.zeros(39, dtype=int)}, "probabilities"),
            ({"probabilities": np.full((40, 7), np.nan)}, "sum to 1"),
            ({"leaked": np.zeros(40, dtype=int)}, "leaked"),
        ],
    )
    def test_rows_that_cannot_be(self, changed: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            predictions(**changed)
