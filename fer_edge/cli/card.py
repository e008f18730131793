"""`fer-edge card`: a bundle's model card."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="card")
@click.argument("bundle")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; printed without it.")
def command(bundle: str, out: Path | None) -> None:
    """Draw the model card of BUNDLE (a folder, or a shipped bundle's name) from its manifest, as Markdown."""
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_atomic
    from fer_edge.export.model_card import model_card

    text = model_card(Bundle.open(bundle))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())
