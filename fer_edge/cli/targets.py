"""`fer-edge targets`: the targets that a bundle can be exported to."""

from __future__ import annotations

from pathlib import Path

from fer_edge.cli import options as opt
from fer_edge.cli.console import show
from fer_edge.core.tables import Table

__all__ = ["command"]


@opt.make_command
def command(
    json_out: Path | None,
) -> None:
    """List the targets of `fer-edge export --target`."""
    from fer_edge.export.recipe import load_target
    from fer_edge.export.selection import target_names

    recipes = {name: load_target(name) for name in target_names()}
    table = Table(
        columns=("target", "summary", "precision", "variant"),
        rows=[(name, recipe.summary, recipe.precision, recipe.variant) for name, recipe in recipes.items()],
    )
    value = {
        name: {"summary": recipe.summary, "precision": recipe.precision, "variant": recipe.variant}
        for name, recipe in recipes.items()
    }
    show(value, json_out, [table])
