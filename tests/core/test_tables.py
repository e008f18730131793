"""One table, shown in a terminal of any width and encoding, as Markdown, as CSV and as HTML."""

from __future__ import annotations

import io

import pytest

from fer_edge.core.tables import Column, Table, print_table

TABLE = Table(
    columns=("variant", "x", Column("ms", priority=1), Column("Δ top-1", priority=2), "note", "empty"),
    rows=[
        ("full/fp32", "1.000", "3.410", None, "the original of every comparison in this table", None),
        ("base/int8", None, "0.412", "−0.20", "a | b", None),
    ],
    title="the benchmark",
    caption="x: time over the reference CNN's ≤ 1\nms: p50",
)


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        print_table(table, out)
    return out.getvalue()


def test_figures_are_right_and_text_is_left_and_empty_columns_are_left_out() -> None:
    head, rule, first, second, blank, *caption = TABLE.to_markdown().splitlines()[2:]
    assert head == "| variant | x | ms | Δ top-1 | note |"
    assert rule == "| --- | ---: | ---: | ---: | --- |"
    assert first.startswith("| full/fp32 | 1.000 | 3.410 | – | the original")
    assert second.endswith("| −0.20 | a \\| b |")
    assert (blank, caption) == ("", ["x: time over the reference CNN's ≤ 1  ", "ms: p50"])


def test_html_is_escaped() -> None:
    page = Table(columns=("<b>",), rows=[("<script>",)], title="a & b", caption="<i>").to_html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "<i>" not in page


@pytest.mark.parametrize("width", [30, 44, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_broken(width: int) -> None:
    text = printed(TABLE, width)
    assert max(map(len, text.splitlines())) <= width
    for row in TABLE.rows:
        assert str(row[0]) in text
    for figure, column in (("3.410", "ms"), ("0.412", "ms"), ("−0.20", "Δ top-1")):
        lines = text.splitlines()
        dropped = next((line for line in lines if line.startswith("Not shown at")), "")
        assert figure in text or column in dropped or any("Not shown at" in line for line in lines)
    assert "1.000" in text


def test_the_lowest_priority_goes_first_and_is_named() -> None:
    table = Table(columns=("a", Column("b", priority=1), Column("c", priority=2)), rows=[["1" * 20] * 3])
    assert "Not shown at 50 columns: c." in printed(table, 50)
    assert "Not shown at 30 columns: b, c." in printed(table, 30)
    assert "Not shown" not in printed(table, 64)


def test_rows_become_columns_where_nothing_may_be_dropped() -> None:
    table = Table(
        columns=("variant", *(f"figure {number}" for number in range(8))),
        rows=[(name, *(f"{number}.123456" for number in range(8))) for name in ("full", "base", "nano")],
    )
    lines = printed(table, 40).splitlines()
    assert lines[0].split() == ["variant", "full", "base", "nano"][: len(lines[0].split())]
    assert all(f"{number}.123456" in "\n".join(lines) for number in range(8))
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_encoding_prints(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    print_table(TABLE, stream)
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "0.20" in printed
    assert "?" not in printed
    assert ("Δ top-1" if encoding == "utf-8" else "d top-1") in printed


def test_a_pipe_is_not_wrapped_and_columns_sets_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    out = io.StringIO()
    print_table(TABLE, out)
    assert "the original of every comparison in this table" in out.getvalue()
    monkeypatch.setenv("COLUMNS", "60")
    out = io.StringIO()
    print_table(TABLE, out)
    assert max(map(len, out.getvalue().splitlines())) <= 60


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 cells, expected 2"):
        Table(columns=("a", "b"), rows=[("1",)])


def test_of_makes_a_row_of_every_item() -> None:
    table = Table.of([1, 2], {"n": str, Column("square", priority=1): lambda n: f"{n * n}"})
    assert table.headings == ("n", "square")
    assert table.rows == [["1", "1"], ["2", "4"]]
