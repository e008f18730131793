"""Resolve every extra of pyproject.toml for every supported Python on Linux x86-64, from wheels alone.

    python bench/extras.py --json bench/results/extras.json

pip resolves and downloads nothing but metadata. It reads the markers of requirements with the running Python, so that a
resolution for another Python can name a package that this one would not need. An extra with a package that has no wheel
(`pycuda`) does not resolve; its result says so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from workbench import json_option, report_errors, result_head

from fer_edge.core.files import write_json
from fer_edge.core.tables import Table, print_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
TOGETHER = ("all", "dev")  # sums of the others
PARTS = {"tensorrt-rtx": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")}
"""Source distributions that hold nothing and only require these wheels."""


def resolved(requirements: list[str], python: str) -> dict[str, Any]:
    """Resolve requirements for one Python: the packages, or pip's reason."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed",
                "--only-binary=:all:", f"--report={report}", f"--target={folder}/target",
                f"--python-version={python}", *(f"--platform={each}" for each in PLATFORMS), *requirements,
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return {"resolved": False, "reason": said[-1] if said else done.stderr[-300:]}
        found = [each["metadata"] for each in json.loads(report.read_text("utf-8"))["install"]]
    return {"resolved": True, "packages": {each["name"].lower(): each["version"] for each in found}}


@click.command()
@click.option("--extra", "wanted", multiple=True, help="Only this extra; repeatable.")
@json_option
@report_errors
def main(wanted: tuple[str, ...], json_file: Path | None) -> None:
    """Resolve every extra for every supported Python."""
    head = result_head("resolution of the extras")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name: [part for each in requirements for part in PARTS.get(re.split("[<>=]", each)[0], (each,))]
        for name, requirements in project["optional-dependencies"].items()
        if name not in TOGETHER and (not wanted or name in wanted)
    }
    results = {
        extra: {python: resolved([*project["dependencies"], *requirements], python) for python in PYTHONS}
        for extra, requirements in extras.items()
    }
    if json_file is not None:
        write_json(json_file, {**head, "extras": results})
    columns: dict[str, Any] = {"extra": str}
    for python in PYTHONS:
        columns[python] = lambda extra, python=python: (
            f"{len(found['packages'])} packages" if (found := results[extra][python])["resolved"] else "no"
        )
    print_table(Table.of(list(results), columns))


if __name__ == "__main__":
    main()
