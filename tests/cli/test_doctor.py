from __future__ import annotations

import json

from click.testing import CliRunner

from fer_edge.cli import main


def test_shows_tables() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    for words in ["processor", "provider cpu", "face detection", "FER_EDGE_DATA", "extra"]:
        assert words in result.stdout


def test_json_stands_alone_on_stdout() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value.keys() == {"machine", "checks", "packages"}
    assert {"name": "provider cpu", "works": True}.items() <= value["checks"][0].items()
