"""`fer-edge verify`: checks the integrity of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import show
from fer_edge.core.tables import Table

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    public_key: Annotated[Path | None, opt.option("Require a signature by this ed25519 key.", metavar="PEM")],
    json_out: Path | None,
) -> None:
    """Check the manifest, hashes, weights and signature of BUNDLE. No graph is run.

    Exits 1 where a check fails.
    """
    from fer_edge.core.verify import verify_bundle

    report = verify_bundle(bundle, public_key=public_key)
    table = Table(
        columns=("check", "verdict", "detail"),
        rows=[(check.name, check.verdict, check.detail) for check in report.checks],
        title=f"{report.path}: {'sound' if report.ok else 'NOT sound'}",
    )
    show(report.to_json(), json_out, [table])
    if not report.ok:
        click.get_current_context().exit(1)
