"""A training run on disk.

run.json                 recipe, data set and its hashes, versions, stage, history, metrics
checkpoint.safetensors   the newest epoch (removed when the run is done)
model.safetensors        the final weights: encoder, head, linear probe
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.files import claimed, read_json, sha256_bytes, sha256_file, write_json
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.machine import repository_commit
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.types import Progress
from fer_edge.data import Dataset, StillSet
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.checkpoint import join, load_checkpoint, save_checkpoint, split
from fer_edge.train.loop import OnEpoch, no_progress
from fer_edge.train.recipe import TrainRecipe, recorded

__all__ = ["RunOptions", "TrainRun", "data_facts", "expect_no_run", "load_tensors", "open_run", "versions"]

SCHEMA = 1
_NOT_TRAINING: Final = ("schema", "done", "choose", "crowd", "history")
"""Keys of a record that do not describe how the weights were trained."""

_BEGUN: Final = ("init", "teacher", "parent", "pruning", "qat", "stage", "fold")
"""Keys of a record that describe where the run began."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is executed; none of it changes the result.

    Attributes:
        resume: continue the run in the output folder; a finished run is returned as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: called after every step.
        on_epoch: called after every epoch of the first stage.
    """

    resume: bool = False
    device: str = "auto"
    progress: Progress = no_progress
    on_epoch: OnEpoch | None = None


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on, and the commit where the code is a git checkout."""
    found = {"python": platform.python_version()}
    for package in ("fer-edge", "torch", "numpy", "scikit-learn", "opencv-python-headless"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    checkout = Path(__file__).parents[2]  # an installed package may be inside another repository
    if (checkout / ".git").exists() and (commit := repository_commit(checkout)) is not None:
        found["commit"] = commit
    return found


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """Name, labels and hashes of a data set; no path, so that a run records nothing about the machine."""
    return {
        "dataset": dataset.name,
        "sha256": dataset.sha256,
        "labels": list(dataset.expressions),
        "splits": {name: _split_facts(stills) for name, stills in dataset.splits.items()},
    }


def _split_facts(stills: StillSet) -> dict[str, Any]:
    facts = {"rows": len(stills), "sha256": stills.sha256}
    return facts if stills.votes is None else {**facts, "votes_sha256": sha256_bytes(stills.votes.tobytes())}


def _without_repeats(account: Any, known: set[str]) -> Any:
    """Drop the nested `training` account of networks whose weights appear in `known` or earlier in the account.

    A run and the bundles exported from it are one network: the hash of the weights identifies it.
    """
    if isinstance(account, list):
        return [_without_repeats(each, known) for each in account]
    if not isinstance(account, dict):
        return account
    weights = account.get("training", {}).get("weights_sha256")
    if weights is not None:
        if weights in known:
            return {key: value for key, value in account.items() if key != "training"}
        known.add(weights)
    return {key: _without_repeats(value, known) for key, value in account.items()}


def load_tensors(path: Path, parts: Mapping[str, nn.Module]) -> None:
    """Load modules from the groups of a file that `save_checkpoint` wrote.

    Raises:
        InputError: the file is missing, damaged, or of other shapes.
    """
    tensors, _ = load_checkpoint(path)
    try:
        for name, module in parts.items():
            # Runs of versions before 0.1 call the probe "temporary".
            old = "temporary" if name == "probe" and not split(tensors, name) else name
            module.load_state_dict(split(tensors, old))
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit the run's recipe ({error}); choose another --out") from error


def expect_no_run(path: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        InputError: it does.
    """
    if (path / "run.json").exists():
        raise InputError(f"{path}: holds a run already; choose another --out, or continue it with --resume")


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
            InputError: the folder holds a run.
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
            InputError: no run, or one of another schema.
        """
        if not (path / "run.json").is_file():
            raise InputError(f"{path}: got no run.json, expected the --out of fer-edge train")
        record = read_json(path / "run.json")
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise InputError(f"{path}/run.json: got schema {record.get('schema')!r}, expected {SCHEMA}")
        recipe = recorded(TrainRecipe, record["recipe"])
        return cls(path=path, recipe=recipe, record=record)

    def update(self, **facts: Any) -> None:
        """Add facts to the record and write it."""
        self.record.update(facts)
        write_json(self.path / "run.json", self.record)

    @property
    def checkpoint(self) -> Path:
        """The file of the newest epoch."""
        return self.path / "checkpoint.safetensors"

    @property
    def done(self) -> bool:
        """Whether the run has ended and holds final weights."""
        return bool(self.record["done"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in output order; the seven expressions for runs of older versions."""
        return tuple(self.record["data"].get("labels", EXPRESSIONS))

    @property
    def config(self) -> ModelConfig:
        """The network's shape."""
        return self.recipe.model

    @property
    def preprocess(self) -> PreprocessSpec:
        """How faces are prepared."""
        return self.recipe.preprocess

    @property
    def identity(self) -> dict[str, Any]:
        """What another run records of this one: hash, accuracy and training."""
        training = self.training
        return {"weights_sha256": training["weights_sha256"], "choose": self.record.get("choose"), "training": training}

    @property
    def training(self) -> dict[str, Any]:
        """How the weights were trained, as a bundle records it; of the epochs only their number.

        A network that appears several times (a teacher of parent and child) is described once; otherwise an account
        would double with every generation.
        """
        account = {key: value for key, value in self.record.items() if key not in _NOT_TRAINING}
        return {
            **_without_repeats(account, set()),
            "weights_sha256": sha256_file(self.path / "model.safetensors"),
            "epochs_run": len(self.record["history"]),
        }

    def new_model(self) -> tuple[AttentionCnnBiLstm, nn.Linear]:
        """Initialise a model of this run's shape, and its linear probe."""
        config = self.recipe.model
        model = AttentionCnnBiLstm(config, normalisation=self.recipe.preprocess.normalisation)
        return model, nn.Linear(config.feature_size, config.classes)

    def load_model(self) -> tuple[AttentionCnnBiLstm, nn.Linear]:
        """Load the final model, with the head `crowd` where the run has one, and its linear probe; evaluation mode.

        Raises:
            InputError: the run is not done, or its weights are damaged or of another shape.
        """
        if not self.done:
            raise InputError(f"{self.path}: the run is not finished; continue the command that began it with --resume")
        model, probe = self.new_model()
        if "crowd" in self.record:
            model.crowd = SequenceHead(self.recipe.model.crowd)
        load_tensors(self.path / "model.safetensors", {"model": model, "probe": probe})
        return model.eval(), probe.eval()

    def finish(
        self, model: AttentionCnnBiLstm, probe: nn.Module, crowd_probe: nn.Module | None = None, **facts: Any
    ) -> None:
        """Write the final weights, with the probe for the votes where it is given, and remove the checkpoint."""
        parts = {"model": model.state_dict(), "probe": probe.state_dict()}
        if crowd_probe is not None:
            parts["crowd_probe"] = crowd_probe.state_dict()
        save_checkpoint(self.path / "model.safetensors", join(parts), {"recipe": encode(self.recipe)})
        self.update(done=True, **facts)
        self.checkpoint.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder while the block runs.

        Raises:
            InputError: another process is training in it.
        """
        with claimed(self.path) as ours:
            if not ours:
                raise InputError(f"{self.path}: another process is training in it; wait, or choose another --out")
            yield


def open_run(recipe: TrainRecipe, dataset: Dataset, out: Path, facts: Mapping[str, Any], *, resume: bool) -> TrainRun:
    """Begin a run, or open the one to resume.

    Args:
        recipe: what to train.
        dataset: what to train on.
        out: the run's folder.
        facts: where the run begins, recorded with it: other runs' identities, a pruning.
        resume: continue the run in `out`, if there is one.

    Raises:
        InputError: the folder holds a run that is not to be resumed, or that began otherwise.
    """
    if resume and (out / "run.json").exists():
        run = TrainRun.open(out)
        begun = {name: run.record[name] for name in _BEGUN if name in run.record}
        if run.recipe != recipe or begun != facts:
            raise InputError(f"{out}: began with other settings; resume it with its own, or choose another --out")
        if run.record["data"]["sha256"] != dataset.sha256:
            raise InputError(
                f"{out}: got data of sha256 {dataset.sha256[:12]}…, expected {run.record['data']['sha256'][:12]}…; "
                "resume it with its own data, or choose another --out"
            )
        if run.record["data"] != data_facts(dataset):
            raise InputError(f"{out}: was trained with other FER+ votes, or without; resume it with its own")
    else:
        run = TrainRun.create(out, recipe, dataset, **facts)
    return run
