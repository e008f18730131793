"""What commands read before they work: packages, data sets, recipes, trained networks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fer_edge.cli.console import progress
from fer_edge.core.errors import InputError

if TYPE_CHECKING:
    from fer_edge.data import Dataset

__all__ = ["read_dataset", "read_priors", "read_recipe", "require_training"]

_Recipe = TypeVar("_Recipe")


def read_dataset(spec: str, *, cache: Path | None = None) -> Dataset:
    """Read the data set of a spec, with a progress bar."""
    from fer_edge.data import load_dataset

    with progress(f"reading {spec}") as bar:
        return load_dataset(spec, cache=cache, progress=bar)


def read_priors(text: str) -> str | dict[str, float]:
    """Read ``--priors``: a name, or ``"neutral=0.7,happy=0.1"``.

    Raises:
        InputError: a share is no number.
    """
    if "=" not in text:
        return text
    shares = dict[str, float]()
    for entry in text.split(","):
        label, _, share = entry.partition("=")
        try:
            shares[label.strip()] = float(share)
        except ValueError:
            raise InputError(f"--priors: got {entry!r}, expected NAME=SHARE, for example neutral=0.7") from None
    return shares


def read_recipe(kind: type[_Recipe], name: str | None, settings: Iterable[str], *, room: str) -> _Recipe:
    """Read a recipe (None: the defaults of `kind`) and apply ``--set``."""
    from fer_edge.core.recipe_overrides import override
    from fer_edge.core.recipes import load_recipe

    return override(kind() if name is None else load_recipe(kind, name, room=room), settings)


def require_training(needed_by: str, *more: str) -> None:
    """Require the packages of every training."""
    from fer_edge.core.errors import require

    for package in ("torch", "safetensors", "sklearn", *more):
        require(package, needed_by=needed_by, extra="train")
