"""The `fer-edge` command: one module per command, imported only when that command runs."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, Final

import click

from fer_edge import __version__
from fer_edge.cli.process import ending_cleanly, tolerate_encodings

__all__ = ["COMMANDS", "main"]

_TASKS: Final[Mapping[str, Mapping[str, str]]] = {
    "Recognise expressions": {
        "run": "Recognise expressions in an image, a video or a live camera.",
        "explain": "Show where the attention looks, and which frames it weighs.",
        "demo": "Try the shipped bundles on drawn faces: verify, measure, run.",
    },
    "Measure": {
        "bench": "Measure latency, size and accuracy of every variant.",
        "clips": "Compare the sequence head with single frames and averaging.",
        "doctor": "Show what this machine has and what it lacks.",
        "gpu-check": "Run and time every GPU path on this machine.",
    },
    "Export and check bundles": {
        "export": "Make a bundle from a training run, or a target's files from a bundle.",
        "targets": "List the targets that a bundle can be exported to.",
        "verify": "Check the hashes, weights and signature of a bundle.",
        "check": "Check without a GPU whether TensorRT accepts a bundle's graphs.",
        "parity": "Compare the outputs of torch, ONNX, INT8 and every engine.",
        "card": "Print the model card of a bundle.",
    },
    "Compress": {
        "calibrate": "Add INT8 variants to a bundle, through the accuracy gate.",
        "sensitivity": "Measure what each layer costs when it alone is quantized.",
        "prune": "Prune a trained network to a MACs or parameter target.",
        "qat": "Fine-tune a network for INT8 (quantization-aware training).",
    },
    "Train": {
        "data": "Describe a data set: splits, class counts, duplicates, leaks.",
        "train": "Train a recipe on a data set.",
        "sweep": "Train and measure a grid of networks.",
        "pareto": "Draw the front of a finished sweep from its pareto.json.",
        "paper": "Train and compare the systems of the paper's tables.",
    },
}

COMMANDS: Final[Mapping[str, str]] = {name: line for commands in _TASKS.values() for name, line in commands.items()}
"""Every command with its line in `fer-edge --help`. Its module is `fer_edge.cli.<name>`, with an underscore for a
hyphen."""


class _Group(click.Group):
    """A group that lists its commands by task without importing them."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        tolerate_encodings()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"fer_edge.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for task, commands in _TASKS.items():
            with formatter.section(task):
                formatter.write_dl([(name.ljust(max(map(len, COMMANDS))), line) for name, line in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with ending_cleanly():
            return super().invoke(ctx)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n  fer-edge run base --source photo.jpg\n  fer-edge bench base\n"
    "  fer-edge export base --target cpu",
)
@click.version_option(__version__, prog_name="fer-edge")
def main() -> None:
    """Recognise a driver's facial expression on embedded hardware.

    BUNDLE is a network with its files: a folder, or a shipped name (full, base, small, nano). Every command has
    --help; tables print as JSON with --json. The exit status is 0 for success, 1 for an error, 2 for wrong usage.
    """
