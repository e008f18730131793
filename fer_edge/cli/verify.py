"""`fer-edge verify`: is a bundle whole and what it says it is?"""

from __future__ import annotations

from pathlib import Path

import click

from fer_edge.cli.console import emit_json, json_flag, print_table


@click.command(name="verify")
@click.argument("bundle")
@click.option(
    "--public-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PEM file of the owner's ed25519 key; a bundle without a valid signature then fails.",
)
@json_flag
@click.pass_context
def command(ctx: click.Context, bundle: str, public_key: Path | None, as_json: bool) -> None:
    """Check BUNDLE (a folder, or a shipped bundle's name): manifest, hashes, weights, signature.

    Exits 1 when a check fails. No graph is run; `fer-edge run` does that.
    """
    from fer_edge.core.verify import verify_bundle

    report = verify_bundle(bundle, public_key=public_key)
    if as_json:
        emit_json(report.to_json())
    else:
        rows = [(check.name, check.verdict, check.detail) for check in report.checks]
        verdict = "sound" if report.ok else "NOT sound"
        print_table(("check", "verdict", "found"), rows, title=f"{report.path}: {verdict}")
    if not report.ok:
        ctx.exit(1)
