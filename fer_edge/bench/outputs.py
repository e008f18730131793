"""Where a benchmark's bundles come from and where its report goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fer_edge.bench.report import BenchReport
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import InputError, require
from fer_edge.core.files import writing

__all__ = ["ensure_writable", "open_bundles", "try_folders", "write_reports"]


def open_bundles(names: Sequence[str]) -> list[Bundle]:
    """The named bundles, folders or shipped names; every shipped one where none is named.

    Raises:
        InputError: none is named and none is shipped.
        BundleError: one of them is missing or damaged.
    """
    chosen = tuple(names) or zoo_names()
    if not chosen:
        raise InputError("no bundle was named and none is shipped; name a bundle's folder")
    return [Bundle.open(name) for name in chosen]


def ensure_writable(json_file: Path | None, html_file: Path | None) -> None:
    """Find out before a long run whether its report can be written, and drawn.

    Raises:
        OutputError: a folder cannot be written.
        MissingPackageError: the page is wanted and matplotlib is not installed.
    """
    if html_file is not None:
        require("matplotlib", needed_by="fer-edge bench --html", extra="report")
    try_folders(json_file, html_file)


def try_folders(*files: Path | None) -> None:
    """Find out before a long run whether its files can be written; None stands for a file that is not wanted.

    Raises:
        OutputError: a folder cannot be written.
    """
    for path in files:
        if path is not None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=path.parent).close()


def write_reports(report: BenchReport, *, json_file: Path | None, html_file: Path | None) -> None:
    """Write the bench JSON and the page, each where it is wanted.

    Raises:
        OutputError: one cannot be written.
        MissingPackageError: the page is wanted and matplotlib is not installed.
    """
    if json_file is not None:
        report.write(json_file)
    if html_file is not None:
        from fer_edge.bench.html_report import write_page

        write_page(report, html_file)
