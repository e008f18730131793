"""`fer-edge targets`: the targets that a bundle can be exported to."""

from __future__ import annotations

import click

from fer_edge.cli.console import emit_json, json_flag, print_table

__all__ = ["command"]


@click.command(name="targets")
@json_flag
def command(as_json: bool) -> None:
    """List the targets of `fer-edge export --target`."""
    from fer_edge.export.recipe import load_target
    from fer_edge.export.selection import target_names

    recipes = {name: load_target(name) for name in target_names()}
    if as_json:
        emit_json({name: {"summary": each.summary, "precision": each.precision} for name, each in recipes.items()})
        return
    rows = [(name, each.summary, each.precision, each.variant) for name, each in recipes.items()]
    print_table(("target", "summary", "precision", "variant"), rows)
