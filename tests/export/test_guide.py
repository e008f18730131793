"""The tables of export/README.md are what the code and the committed results say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fer_edge.core.bundle import Bundle
from fer_edge.export.preflight import ROWS, check_bundle
from fer_edge.export.selection import target_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def guide() -> str:
    path = ROOT / "export" / "README.md"
    if not path.is_file():
        pytest.skip("export/ is not part of the source distribution")
    return path.read_text("utf-8")


def block(guide: str, name: str) -> str:
    found = re.search(rf"<!-- {name}: \S+ -->\n(.*?)<!-- /{name} -->", guide, flags=re.DOTALL)
    assert found, f"the guide has no block {name!r}"
    return found[1]


def lines(*rows: tuple[str, ...]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_preflight_of_the_shipped_bundle(guide: str) -> None:
    verdicts = check_bundle(Bundle.open("base"))
    words = {(each.variant, each.target): "ok" if each.accepted else "refused" for each in verdicts}
    rows = [
        (f"`{variant}`", *(words[variant, row] for row in ROWS))
        for variant in dict.fromkeys(each.variant for each in verdicts)
    ]
    expected = lines(("variant", *ROWS), ("---",) * (len(ROWS) + 1), *rows)
    assert block(guide, "check") == expected


def test_every_target_is_in_the_guide(guide: str) -> None:
    for name in target_names():
        assert f"`{name}`" in guide, name
