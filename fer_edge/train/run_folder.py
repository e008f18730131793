"""A training run on disk: what was asked, what was read, what came out, and how to go on.

run.json                 recipe, data set and its hashes, versions, stage, history, metrics
checkpoint.safetensors   the newest epoch, whole (removed when the run is done)
model.safetensors        the shipped weights: encoder, head, temporary classifier
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, sha256_bytes, sha256_file, write_json
from fer_edge.core.json import decode, encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.machine import repository_commit
from fer_edge.data import Dataset, StillSet
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint, split
from fer_edge.train.recipe import TrainRecipe

__all__ = ["TrainRun", "data_facts", "expect_no_run", "versions"]

SCHEMA = 1
# Of a record: what does not say how weights came about.
_NOT_TRAINING: Final = ("schema", "done", "choose", "history")


def versions() -> dict[str, str]:
    """Versions of what a run's result depends on, and the commit where the code is a git checkout."""
    found = {"python": platform.python_version()}
    for package in ("fer-edge", "torch", "numpy", "scikit-learn", "opencv-python-headless"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    checkout = Path(__file__).parents[2]  # not so where it is installed, perhaps in some other repository
    if (checkout / ".git").exists() and (commit := repository_commit(checkout)) is not None:
        found["commit"] = commit
    return found


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """Name and hashes of what was read; no path, so that a run tells nothing about the machine it ran on."""
    return {
        "dataset": dataset.name,
        "sha256": dataset.sha256,
        "labels": list(dataset.expressions),
        "splits": {name: _split_facts(stills) for name, stills in dataset.splits.items()},
    }


def _split_facts(stills: StillSet) -> dict[str, Any]:
    facts = {"rows": len(stills), "sha256": stills.sha256}
    return facts if stills.votes is None else {**facts, "votes_sha256": sha256_bytes(stills.votes.tobytes())}


def _told_once(account: Any, known: set[str]) -> Any:
    """An account of a training without the `training` of any network whose weights are in `known`, or come in earlier.

    A run and the bundles exported from it are one network: their weights tell, which a bundle's own hash does not.
    """
    if isinstance(account, list):
        return [_told_once(each, known) for each in account]
    if not isinstance(account, dict):
        return account
    weights = account.get("training", {}).get("weights_sha256")
    if weights is not None:
        if weights in known:
            return {key: value for key, value in account.items() if key != "training"}
        known.add(weights)
    return {key: _told_once(value, known) for key, value in account.items()}


def expect_no_run(path: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        InputError: it does.
    """
    if (path / "run.json").exists():
        raise InputError(f"{path} holds a run already; choose another --out, or go on with it by --resume")


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """A run folder and its record."""

    path: Path
    recipe: TrainRecipe
    record: dict[str, Any]

    @classmethod
    def create(cls, path: Path, recipe: TrainRecipe, dataset: Dataset, **facts: Any) -> TrainRun:
        """Begin a run in an empty or new folder.

        Raises:
            InputError: the folder holds a run already.
            OutputError: the folder cannot be written.
        """
        expect_no_run(path)
        record = {
            "schema": SCHEMA,
            "recipe": encode(recipe),
            "data": data_facts(dataset),
            "versions": versions(),
            "done": False,
            "history": [],
            **facts,
        }
        write_json(path / "run.json", record)
        return cls(path=path, recipe=recipe, record=record)

    @classmethod
    def open(cls, path: Path) -> TrainRun:
        """Open a run folder.

        Raises:
            InputError: the folder is no run, or one of another schema.
        """
        if not (path / "run.json").is_file():
            raise InputError(f"{path} is no training run: it holds no run.json; expected the --out of fer-edge train")
        record = read_json(path / "run.json")
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise InputError(f"{path}/run.json is of schema {record.get('schema')!r}; this fer-edge reads {SCHEMA}")
        recipe = decode(TrainRecipe, record["recipe"])
        return cls(path=path, recipe=recipe, record=record)

    def update(self, **facts: Any) -> None:
        """Add facts to the record and write it."""
        self.record.update(facts)
        write_json(self.path / "run.json", self.record)

    @property
    def done(self) -> bool:
        """Whether the run came to its end and holds final weights."""
        return bool(self.record["done"])

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model's outputs mean, in their order; runs of older versions know the seven expressions alone."""
        return tuple(self.record["data"].get("labels", EXPRESSIONS))

    @property
    def sparsity(self) -> str | None:
        """The pattern of zeros that its weights were pruned to, ``"2:4"``; None where they are dense."""
        pruned: dict[str, str] = self.record.get("sparsity", {})
        return pruned.get("pattern")

    @property
    def identity(self) -> dict[str, Any]:
        """What another run records of this one: its hash, how it did, and how it was itself trained."""
        training = self.training
        return {"weights_sha256": training["weights_sha256"], "choose": self.record.get("choose"), "training": training}

    @property
    def training(self) -> dict[str, Any]:
        """How its weights came about, as a bundle's manifest tells it; the epochs only by their number.

        A network that several others came from (say a teacher of parent and child) is told of once, where first named;
        after that its hash stands alone. Told each time, an account would double with every generation.
        """
        told = {key: value for key, value in self.record.items() if key not in _NOT_TRAINING}
        return {
            **_told_once(told, set()),
            "weights_sha256": sha256_file(self.path / "model.safetensors"),
            "epochs_run": len(self.record["history"]),
        }

    def new_model(self) -> tuple[AttentionCnnBiLstm, nn.Linear]:
        """A freshly initialised model of this run's shape, and its temporary classifier."""
        config = self.recipe.model
        model = AttentionCnnBiLstm(config, normalisation=self.recipe.preprocess.normalisation)
        return model, nn.Linear(config.feature_size, config.classes)

    def load_model(self) -> tuple[AttentionCnnBiLstm, nn.Linear]:
        """The final model and its temporary classifier, in evaluation mode.

        Raises:
            InputError: the run is not done, or its weights are damaged or of another shape.
        """
        if not self.done:
            raise InputError(f"{self.path} is not finished; the command that began it goes on with --resume")
        tensors, _ = load_checkpoint(self.path / "model.safetensors")
        model, temporary = self.new_model()
        try:
            model.load_state_dict(split(tensors, "model"))
            temporary.load_state_dict(split(tensors, "temporary"))
        except RuntimeError as error:
            raise InputError(f"{self.path}/model.safetensors does not fit the run's recipe: {error}") from error
        return model.eval(), temporary.eval()

    def finish(self, model: AttentionCnnBiLstm, temporary: nn.Module, **facts: Any) -> None:
        """Write the final weights and drop the checkpoint."""
        tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"temporary/{name}": tensor for name, tensor in temporary.state_dict().items()}
        save_checkpoint(self.path / "model.safetensors", tensors, {"recipe": encode(self.recipe)})
        self.update(done=True, **facts)
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)
