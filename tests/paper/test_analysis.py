"""From runs to the report: seeds that match, families of their own, rows that must be the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from studies import ROWS, all_runs, made_up_run, made_up_split, summarised

from fer_edge.core.errors import InputError
from fer_edge.paper.report import StudyReport
from fer_edge.paper.statistics import holm


class TestSummarise:
    def test_pairs_are_compared_by_the_seeds_that_both_have(self) -> None:
        runs = [made_up_run("complete", seed, 0.6) for seed in (0, 1, 2)] + [made_up_run("no-lda", 1, 0.5)]
        (pair,) = summarised(runs).pairs
        assert pair.seeds == (1,)
        expected = runs[3].report.right.mean() - runs[1].report.right.mean()  # type: ignore[union-attr]
        assert pair.report.difference == pytest.approx(expected)

    def test_seeds_in_any_order(self) -> None:
        runs = [
            made_up_run(name, seed, rate) for name, rate in (("complete", 0.6), ("cnn-lstm", 0.5)) for seed in (0, 1)
        ]
        assert summarised(runs) == summarised(runs[::-1])

    def test_holm_runs_over_each_part_of_the_study_by_itself(self) -> None:
        report = summarised(all_runs())
        for family in ("tables", "beyond", "lstm", "size"):
            pairs = [pair for pair in report.pairs if pair.group == family]
            assert len(pairs) == {"tables": 8, "beyond": 5, "lstm": 8, "size": 1}[family]
            assert [pair.p_holm for pair in pairs] == list(holm([pair.report.p for pair in pairs]))

    def test_ranks_are_of_the_systems_of_tables_1_to_3(self) -> None:
        ranks = summarised(all_runs()).ranks
        assert ranks is not None
        assert (ranks.systems[0], ranks.systems[-1]) == ("complete", "no-features")
        assert len(ranks.systems) == 9
        assert sum(ranks.mean_ranks) == pytest.approx(45)

    def test_methods_are_ranked_by_the_seeds_that_all_have(self) -> None:
        others = [made_up_run(name, 1, 0.5) for name in ("cnn-lstm", "cnn-bilstm")]
        runs = [*(made_up_run("complete", seed, 0.6) for seed in (0, 1)), *others]
        both, alone = summarised(runs).ranks, summarised(runs[1:]).ranks
        assert both is not None
        assert both.seeds == (1,)
        assert both == alone
        apart = summarised([runs[0], *others]).ranks
        assert apart is not None
        assert apart.seeds == ()

    def test_without_a_reporting_split_the_other_one_counts(self) -> None:
        runs = [made_up_run(name, 0, 0.6, report=None) for name in ("complete", "cnn-lstm")]
        report = summarised(runs)
        assert report.systems[0].report is None
        assert (report.pairs[0].split, report.pairs[0].report.n) == ("PublicTest", ROWS["PublicTest"])

    def test_seconds_and_leaked_rows(self) -> None:
        row = summarised([made_up_run("complete", seed, 0.6) for seed in (0, 1, 2)]).systems[0]
        assert (row.seconds.mean, row.seconds.sd) == (101.0, 1.0)
        assert row.best_split.n_without_leaked == 700 - 14

    def test_two_runs_of_one_system_and_seed(self) -> None:
        with pytest.raises(InputError, match="got two of complete with seed 0"):
            summarised([made_up_run("complete", 0, 0.5), made_up_run("complete", 0, 0.6)])

    def test_an_unknown_system(self) -> None:
        with pytest.raises(InputError, match="'transformer'"):
            summarised([made_up_run("transformer", 0, 0.5)])

    def test_other_rows(self) -> None:
        odd = made_up_run("cnn-lstm", 0, 0.5)
        odd = dataclasses.replace(odd, report=made_up_split("AnotherTest", 0.5, seed=0))
        with pytest.raises(InputError, match="rows: got AnotherTest"):
            summarised([made_up_run("complete", 0, 0.5), odd])


class TestStudyFile:
    def test_goes_there_and_back(self, tmp_path: Path) -> None:
        report = summarised(all_runs()[:6])
        report.write(tmp_path / "study.json")
        assert StudyReport.read(tmp_path / "study.json") == report

    def test_another_schema(self, tmp_path: Path) -> None:
        (tmp_path / "study.json").write_text('{"schema": 1}')
        with pytest.raises(InputError, match=r"study\.json: "):
            StudyReport.read(tmp_path / "study.json")
