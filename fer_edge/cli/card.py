"""`fer-edge card`: the model card of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import note_written, show

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    out: Annotated[Path | None, opt.output("Write the card here instead of printing it.")],
    json_out: Path | None,
) -> None:
    """Print the model card of BUNDLE as Markdown; with --json the manifest it is made from."""
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_atomic
    from fer_edge.export.model_card import model_card

    opened = Bundle.open(bundle)
    text = model_card(opened)
    if out is not None:
        write_atomic(out, text.encode())
        note_written(out)
    value = {"bundle": str(opened.path), "sha256": opened.sha256, "manifest": opened.manifest.to_json()}
    show(value, json_out, [text.rstrip("\n")] if out is None else [])
