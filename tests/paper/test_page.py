"""The study's page: every table, rows that are not run yet, and files that are whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import all_runs, made_up_run, summarised

from fer_edge.core.errors import OutputError
from fer_edge.paper.page import render_study, write_study
from fer_edge.paper.report import StudyReport
from fer_edge.paper.systems import SYSTEMS


@pytest.fixture(scope="module")
def report() -> StudyReport:
    return summarised(all_runs())


@pytest.fixture(scope="module")
def page(report: StudyReport) -> str:
    return render_study(report)


def section(page: str, heading: str) -> str:
    return page.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]


def test_table_1_word_for_word(page: str) -> None:
    table = section(page, "## Table 1: the gain of each part").strip()
    assert table.splitlines()[:4] == [
        "| system | seeds | split | top-1 % | F1 | without leaked | PublicTest, without leaked | Δ | p "
        "| paper, Table 1 |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| No feature extraction | 0, 1, 2 | PrivateTest | 29.19 ± 2.05 | 29.12 ± 1.97 | 29.25 ± 2.11 | 31.31 ± 0.56 "
        "| -35.95 [-38.67, -33.19] | < 0.001 | 61.20 |",
        "| No attention | 0, 1, 2 | PrivateTest | 55.57 ± 2.02 | 55.54 ± 2.04 | 55.83 ± 2.04 | 55.96 ± 1.84 "
        "| -9.57 [-12.48, -6.71] | < 0.001 | 72.85 |",
    ]


def test_every_system_has_a_row(page: str) -> None:
    for system in SYSTEMS.values():
        assert f"| {system.title} |" in page


def test_the_papers_figures_stand_in_their_own_columns(page: str) -> None:
    table = section(page, "## Tables 2 and 3: the systems")
    heading = next(line for line in table.splitlines() if line.startswith("| system"))
    assert heading.endswith("| paper, Table 2 | paper, Table 3 |")
    svm = next(line for line in table.splitlines() if line.startswith("| CNN-SVM"))
    assert svm.endswith("| – | 91.95 / 92.16 / 91.22 / 90.78 |")


def test_rows_to_come_say_so() -> None:
    page = render_study(summarised([made_up_run("complete", 0, 0.6), made_up_run("cnn-lstm", 0, 0.5)]))
    assert "| No attention | not run yet | – | – |" in page
    assert "| CNN-LSTM | 0 (2 to come) | PrivateTest |" in page


def test_no_run_at_all(tmp_path: Path) -> None:
    write_study(summarised([]), tmp_path)
    assert "| Proposed (complete) | not run yet |" in (tmp_path / "README.md").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "study.json"]


def test_without_the_complete_system_nothing_is_compared() -> None:
    report = summarised([made_up_run("cnn-lstm", 0, 0.5), made_up_run("cnn-bilstm", 0, 0.5)])
    assert report.pairs == ()
    assert "| CNN-LSTM | 0 (2 to come) | PrivateTest |" in render_study(report)


def test_nothing_is_written_where_nothing_can_be(report: StudyReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_study(report, tmp_path / "file")


def test_the_confusion_matrix_sums_the_seeds(report: StudyReport) -> None:
    row = report.systems[0]
    assert sum(map(sum, row.best_split.confusion)) == 3 * row.best_split.n
