"""`fer-edge card`: the model card of a bundle, or the card that a graph carries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from fer_edge.cli import options as opt
from fer_edge.cli.console import note_written, show
from fer_edge.core.tables import Table

__all__ = ["command"]


@opt.make_command
def command(
    bundle: Annotated[str, opt.argument(metavar="BUNDLE|GRAPH")],
    out: Annotated[Path | None, opt.output("Write the card here instead of printing it.")],
    json_out: Path | None,
) -> None:
    """Print the model card of BUNDLE; with --json the manifest it is made from.

    The card is formatted on a terminal, and Markdown in a file or a pipe.

    GRAPH is one .onnx or .tflite file: its own card is printed, without the bundle.
    """
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_atomic

    if Path(bundle).is_file():
        card = _graph_card(Path(bundle))
        rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in card.items()]
        table = Table(columns=("fact", "value"), rows=rows, title=bundle)
        if out is not None:
            write_atomic(out, table.to_markdown().encode())
            note_written(out)
        show(card, json_out, [table] if out is None else [])
        return
    from fer_edge.export.model_card import model_card

    opened = Bundle.open(bundle)
    text = model_card(opened)
    if out is not None:
        write_atomic(out, text.encode())
        note_written(out)
    value = {"bundle": str(opened.path), "sha256": opened.sha256, "manifest": opened.manifest.to_json()}
    if out is None and json_out is None and sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
        return
    show(value, json_out, [text.rstrip("\n")] if out is None else [])


def _graph_card(path: Path) -> dict[str, Any]:
    from fer_edge.core.errors import InputError, require
    from fer_edge.core.graph_card import read_card

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: got {error.strerror or error}, expected a readable graph") from error
    if path.suffix != ".tflite":
        return read_card(data, name=str(path))
    require("ai_edge_litert", needed_by="the card of a LiteRT file", extra="litert")
    from fer_edge.export.litert_file import read_facts

    return read_facts(data, name=str(path))
