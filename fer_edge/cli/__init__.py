"""The `fer-edge` command: a module a command, imported when that command runs and not before."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from fer_edge import __version__
from fer_edge.core.errors import FerEdgeError

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[Mapping[str, str]] = {
    "data": "Look at a data set: splits, class counts, duplicates, leaks.",
    "train": "Train a preset on a data set.",
    "prune": "Make a trained network smaller, to a MACs target.",
    "qat": "Train a network to be INT8, from its float weights.",
    "export": "Make a bundle from a training run, or a target's files from a bundle.",
    "targets": "List the targets that a bundle can be exported to.",
    "check": "Check without a GPU whether TensorRT accepts a bundle's graphs.",
    "parity": "Compare the outputs of torch, ONNX, INT8 and every engine.",
    "calibrate": "Add INT8 variants to a bundle, through the accuracy gate.",
    "sensitivity": "Measure what each layer costs when it alone is quantized.",
    "bench": "Measure latency and accuracy of every variant.",
    "sweep": "Measure a grid or a search of networks; draw their front.",
    "pareto": "Draw the front of a finished sweep from its pareto.json.",
    "clips": "Show what the sequence head buys, on clips made of stills.",
    "run": "Recognise expressions in an image, a video or a camera's stream.",
    "explain": "Show where the attention looks in a face, and which frames it weighs.",
    "verify": "Check that a bundle is whole and what it says it is.",
    "card": "Draw a bundle's model card from its manifest.",
    "gpu-check": "Try every GPU path on this machine: does it run, agree, and how fast?",
    "doctor": "Show what this machine has and what it lacks.",
    "paper": "Train and compare the systems of the paper's tables.",
    "demo": "Try the shipped bundles on made-up faces: verify, measure, run.",
}
"""Every command, in the order of the work, with its line in `fer-edge --help`. Its module is `fer_edge.cli.<name>`, an
underscore for a hyphen."""


class _Failure(click.ClickException):
    """Printed as one line of `error: ...` on stderr, without a traceback; exit status 1."""

    def show(self, file: Any = None) -> None:
        _drop_unwritten()
        click.echo(f"error: {self.message}", err=True)


class _Interrupted(_Failure):
    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


def _drop_unwritten() -> None:
    """Let go of what a full disk under stdout does not take, which Python would try once more, and name, at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _LazyGroup(click.Group):
    """A group that knows its commands by name and help, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"fer_edge.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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
        try:
            return super().invoke(ctx)
        except FerEdgeError as error:
            raise _Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads what we print any more: click ends without a word
                raise
            raise _Failure(f"the system refuses: {error}") from error
        except KeyboardInterrupt as error:
            raise _Interrupted("interrupted; nothing half-written is left behind") from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fer-edge")
def main() -> None:
    """Driver-expression recognition, from training to the vehicle.

    A network is trained, pruned, exported to a bundle, calibrated to INT8, measured and run; every step says what it
    costs in accuracy and what it gains in speed. `fer-edge COMMAND --help` tells what a command takes.
    """
