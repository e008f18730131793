"""The study's page: the tables word for word, what does not help said so, and files that are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import all_runs, made_up_run, summarised

from fer_edge.core.bootstrap import BootstrapReport
from fer_edge.core.errors import OutputError
from fer_edge.paper.report import PairSummary, StudyReport
from fer_edge.paper.report_page import render_study, verdict, write_study
from fer_edge.paper.systems import SYSTEMS

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def report() -> StudyReport:
    return summarised(all_runs())


@pytest.fixture(scope="module")
def page(report: StudyReport) -> str:
    return render_study(report)


def section(page: str, heading: str) -> str:
    return page.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]


class TestPage:
    def test_table_1_word_for_word(self, page: str) -> None:
        table = section(page, "## Table 1: the gain of each part")
        assert table.splitlines()[5:11] == [
            "| system | seeds | split | top-1 % | without leaked | PublicTest | Δ | p | paper, Table 1 |",
            "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| No feature extraction | 0, 1, 2 | PrivateTest | 29.19 ± 2.05 | 29.25 ± 2.11 | 31.31 ± 0.56 "
            "| -35.95 [-38.67, -33.19] | < 0.001 | 61.20 |",
            "| No attention | 0, 1, 2 | PrivateTest | 55.57 ± 2.02 | 55.83 ± 2.04 | 55.96 ± 1.84 "
            "| -9.57 [-12.48, -6.71] | < 0.001 | 72.85 |",
            "| No reconstruction | 0, 1, 2 | PrivateTest | 55.57 ± 2.02 | 55.83 ± 2.04 | 55.96 ± 1.84 "
            "| -9.57 [-12.48, -6.71] | < 0.001 | 75.34 |",
            "| Proposed (complete) | 0, 1, 2 | PrivateTest | 65.14 ± 0.52 | 65.40 ± 0.30 | 64.96 ± 4.79 "
            "| – | – | 81.42 |",
        ]

    def test_what_does_not_help_is_said(self, page: str) -> None:
        said = section(page, "### Beyond the paper")
        assert "**LDA** does not help measurably: the interval contains 0" in said
        assert "**Contrast normalisation** harms on these images" in said
        assert "**The centre loss** helps (+11.57 points [+6.57, +16.57], p < 0.001, n = 700, one seed)" in said

    def test_every_system_has_a_row(self, page: str) -> None:
        for system in SYSTEMS.values():
            assert f"| {system.title} |" in page

    def test_the_papers_figures_stand_in_their_own_columns(self, page: str) -> None:
        table = section(page, "## Tables 2 and 3: the systems")
        heading = next(line for line in table.splitlines() if line.startswith("| system"))
        assert heading.endswith("| paper, Table 2 | paper, Table 3 |")
        svm = next(line for line in table.splitlines() if line.startswith("| CNN-SVM"))
        assert svm.endswith("| – | 91.95 / 92.16 / 91.22 / 90.78 |")

    def test_recalls_name_their_system(self, page: str) -> None:
        table = section(page, "## Recall by expression").splitlines()
        assert table[1].startswith("| system | seeds | split | angry |")
        assert table[3].startswith("| Proposed (complete) | 0, 1, 2 | PrivateTest | ")

    def test_why_they_differ_and_what_made_the_page(self, page: str) -> None:
        assert "81.42 % in Table 1, 97.34 % in Table 2, 97.76 % in Table 3" in page
        assert "`fer-edge paper --data fer2013:fer2013 --out study`" in page

    def test_ckplus_rows_invent_nothing(self, page: str) -> None:
        rows = [line for line in section(page, "## CK+").splitlines() if line.startswith("| Proposed")]
        assert rows[0] == "| Proposed (complete) | stills | random weights | not run: data not at hand | 99.21 |"
        assert len(rows) == 2 * 3
        assert all("not run: data not at hand |" in row for row in rows)


class TestBrokenOff:
    def test_rows_to_come_say_so(self) -> None:
        page = render_study(summarised([made_up_run("complete", 0, 0.6), made_up_run("cnn-lstm", 0, 0.5)]))
        assert "| No attention | not run yet | – | – | – | – | 72.85 |" in page
        assert "| CNN-LSTM | 0 (2 to come) | PrivateTest |" in page
        assert "**Unfinished:** no training yet: No feature extraction, No attention" in page
        assert "seeds to come: Proposed (complete), CNN-LSTM." in page

    def test_no_run_at_all(self, tmp_path: Path) -> None:
        write_study(summarised([]), tmp_path)
        assert "| Proposed (complete) | not run yet |" in (tmp_path / "README.md").read_text("utf-8")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "study.json"]

    def test_without_the_complete_system_nothing_is_compared(self) -> None:
        report = summarised([made_up_run("cnn-lstm", 0, 0.5), made_up_run("cnn-bilstm", 0, 0.5)])
        assert report.pairs == ()
        assert "| CNN-LSTM | 0 (2 to come) | PrivateTest |" in render_study(report)


def pair(difference: float, low: float, high: float, p_holm: float, system: str = "no-lda") -> PairSummary:
    found = BootstrapReport(n=100, difference=difference, low=low, high=high, level=0.95, p=0.01, resamples=1000)
    return PairSummary(
        family="beyond", system=system, against="complete", split="PrivateTest", seeds=(0,), report=found, p_holm=p_holm
    )


class TestVerdict:
    @pytest.mark.parametrize(
        ("found", "said"),
        [
            (pair(-0.02, -0.03, -0.01, 0.01), "**LDA** helps (+2.00 points [+1.00, +3.00], p 0.01"),
            (pair(-0.02, -0.03, -0.01, 0.20), "**LDA** does not help significantly: the interval excludes 0"),
            (pair(-0.01, -0.03, 0.01, 0.20), "**LDA** does not help measurably: the interval contains 0"),
            (pair(0.02, 0.01, 0.03, 0.01), "**LDA** harms on these images (-2.00 points [-3.00, -1.00]"),
            (pair(0.02, 0.01, 0.03, 0.2), "**LDA** harms on these images, but not after Holm's correction"),
            (pair(-0.01, -0.03, 0.01, 0.2, "cnn-lstm"), "**The complete system** does not beat CNN-LSTM measurably"),
            (pair(0.02, 0.01, 0.03, 0.01, "cnn-lstm"), "**The complete system** is beaten by CNN-LSTM"),
        ],
    )
    def test_one_sentence(self, found: PairSummary, said: str) -> None:
        assert verdict(found, title="CNN-LSTM").startswith(said)


class TestFiles:
    def test_json_markdown_and_drawings(self, report: StudyReport, tmp_path: Path) -> None:
        (tmp_path / "clips.json").write_text("{}")
        (tmp_path / "preprocessing.png").write_bytes(b"of an earlier study")
        write_study(report, tmp_path)
        drawn = {path.name for path in tmp_path.glob("*.png")}
        assert drawn == {
            "confusion-matrices.png", "critical-differences.png", "differences.png", "expressions.png",
            "lstm-parameters.png",
        }  # fmt: skip
        assert all((tmp_path / name).read_bytes().startswith(PNG) for name in drawn)
        page = (tmp_path / "README.md").read_text("utf-8")
        assert all(f"]({name})" in page for name in drawn)
        assert StudyReport.read(tmp_path / "study.json") == report
        assert (tmp_path / "clips.json").exists()

    def test_nothing_is_written_where_nothing_can_be(self, report: StudyReport, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            write_study(report, tmp_path / "file", plots=False)

    def test_the_confusion_matrix_sums_the_seeds(self, report: StudyReport) -> None:
        complete = report.systems[0]
        assert np.sum(complete.best_split.confusion) == 3 * 700
        rate = np.trace(complete.best_split.confusion) / (3 * 700)
        assert rate == pytest.approx(complete.best_split.top1.mean)
