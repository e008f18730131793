"""A sweep's folder: whose it is, what of it is done, and who is working on what.

sweep.json               the recipe and the data that everything in the folder was made with
networks/UNIT/           run/, pruned runs, bundles/, and NETWORK.json once a network is made, or cannot be
study.db, trials/N/      the search and the runs of its trials
bench/PROVIDER-*.json    the measurement of every point of one provider
pareto.json, .md, .png   what came of it
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import InputError
from fer_edge.core.files import claimed, read_json, sha256_file, write_json, writing
from fer_edge.core.json import decode, encode
from fer_edge.data import Dataset
from fer_edge.sweep.grid import Network, Unit
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.train.recipe import TrainRecipe

__all__ = ["Made", "SweepFolder"]

SCHEMA: Final = 1

_GROWS: Final = ("bundles", "runs", "keep", "precisions", "providers", "timing", "threads")
"""Keys of a recipe that may change from one start to the next: what is there stays true. So may the lists of the grid,
and the number of trials."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one network.

    Attributes:
        network: its name.
        recipe: what it was trained by; None where a run was given.
        run: hash and accuracy of the run that it was exported from; None where it failed before.
        forms: what came of each precision that was to be made: ``"passed"``, or why not.
        failed: why there is no bundle; None where there is one.
    """

    schema: int = SCHEMA
    network: str
    recipe: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    forms: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepFolder:
    """The folder of one sweep; several processes may work in it.

    Attributes:
        path: where it lies.
        id: tells this folder from others that join the same search.
    """

    path: Path
    id: str

    @classmethod
    def open(cls, path: Path, recipe: SweepRecipe, *, recipe_name: str, dataset: Dataset) -> SweepFolder:
        """Open the folder of this sweep, or begin it.

        Raises:
            InputError: the folder holds something else, a sweep of another recipe, or one on other data.
            OutputError: it cannot be written.
        """
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        with claimed(path, wait=True):
            file = path / "sweep.json"
            if not file.exists():
                if any(path.iterdir()):
                    raise InputError(f"{path} holds files but no sweep; choose another --out")
                identity = uuid.uuid4().hex
            else:
                identity = _checked(file, recipe, dataset)
            stated = {
                "schema": SCHEMA,
                "id": identity,
                "recipe_name": recipe_name,
                "recipe": encode(recipe),
                "data": {"dataset": dataset.name, "sha256": dataset.sha256},
            }
            if not file.exists() or read_json(file) != stated:
                write_json(file, stated)
        return cls(path=path, id=identity)

    def place(self, unit: Unit) -> Path:
        """Where a unit is worked on; made if need be.

        Raises:
            OutputError: it cannot be written.
        """
        return self._folder("networks", unit.name)

    def trial_place(self, number: int) -> Path:
        """Where a trial is worked on."""
        return self._folder("trials", str(number))

    @property
    def bench_place(self) -> Path:
        """Where measurements lie."""
        return self._folder("bench")

    def bundle_path(self, unit: Unit, network: Network) -> Path:
        """Where a network's bundle lies."""
        return self.path / "networks" / unit.name / "bundles" / network.name

    def made(self, unit: Unit, network: Network) -> Made | None:
        """What became of a network; None where it is yet to be made.

        That of a run that is given is made anew where the run has other weights by now.

        Raises:
            InputError: the record is damaged, or the network was trained by other settings.
        """
        file = self._record(unit, network)
        if not file.exists():
            return None
        found = decode(Made, read_json(file), where=str(file))
        if unit.run is not None and not _made_of(found, unit.run):
            return None
        if unit.recipe is not None and _recipe_of(found) != unit.recipe:
            raise InputError(
                f"{file} was made by other training settings than the recipe's; choose another --out, or remove "
                f"{file.parent}"
            )
        return found

    def record(self, unit: Unit, network: Network, made: Made) -> None:
        """Say what became of a network.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(self._record(unit, network), encode(made))

    @contextmanager
    def claim(self, unit: Unit) -> Iterator[bool]:
        """Whether this process may work on a unit, while the block runs."""
        with claimed(self.place(unit)) as ours:
            yield ours

    def in_other_hands(self, unit: Unit) -> bool:
        """Whether another process is working on a unit now."""
        with self.claim(unit) as ours:
            return not ours

    def _record(self, unit: Unit, network: Network) -> Path:
        return self.path / "networks" / unit.name / f"{network.name}.json"

    def _folder(self, *parts: str) -> Path:
        place = self.path.joinpath(*parts)
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        return place


def _checked(file: Path, recipe: SweepRecipe, dataset: Dataset) -> str:
    """The folder's id, if the recipe and the data are its own."""
    stated = read_json(file)
    if not isinstance(stated, dict) or stated.get("schema") != SCHEMA or not isinstance(stated.get("recipe"), dict):
        raise InputError(f"{file} is no sweep of this version; choose another --out")
    if stated["data"]["sha256"] != dataset.sha256:
        raise InputError(f"{file.parent} is a sweep on other data (sha256 {stated['data']['sha256'][:12]}…)")
    try:
        before = decode(SweepRecipe, stated["recipe"])
    except InputError as error:
        raise InputError(f"{file} is no sweep of this version ({error}); choose another --out") from error
    old, new = _fixed(before), _fixed(recipe)
    if differing := [key for key in new if old[key] != new[key]]:
        raise InputError(
            f"{file.parent} is a sweep of the recipe {stated['recipe_name']!r} with another {differing[0]}; a folder "
            "has one sweep, of which only axes and the number of trials may change: choose another --out"
        )
    return str(stated["id"])


def _fixed(recipe: SweepRecipe) -> dict[str, Any]:
    """What of a recipe must stay as it is."""
    kept = {key: value for key, value in asdict(recipe).items() if key not in _GROWS}
    if recipe.grid is not None:
        kept["grid"] = {"teachers": recipe.grid.teachers}
    if recipe.search is not None:
        kept["search"] = {key: value for key, value in asdict(recipe.search).items() if key != "trials"}
    # A sweep without any grid or search of its own shares nothing with another: its networks must be the same kind.
    kept["kind"] = [recipe.makes_networks, recipe.grid is not None, recipe.search is not None]
    return kept


def _made_of(made: Made, run: Path) -> bool:
    """Whether a network, or the one that it was pruned from, has the weights of a run; so it is where one is gone."""
    weights = run / "model.safetensors"
    if not weights.is_file() or made.run is None:
        return True
    parent = made.run["training"].get("parent", {})
    return sha256_file(weights) in (made.run["weights_sha256"], parent.get("weights_sha256"))


def _recipe_of(made: Made) -> TrainRecipe | None:
    """What a network was trained by; settings that are younger than the record have their defaults."""
    try:
        return decode(TrainRecipe, made.recipe)
    except InputError:
        return None
