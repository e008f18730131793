"""Trained networks to start from, to prune or to follow: finished runs and bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.data import Dataset
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import refit_batch_norm, training_faces
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.distillation import Teachers
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.linear_probe import probe_of_faces
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import TrainRun

__all__ = [
    "Pretrained",
    "TrainedNetwork",
    "expect_initial",
    "expect_teachers",
    "initial_network",
    "load_network",
    "load_teachers",
    "open_pretrained",
    "teacher_facts",
]

Pretrained: TypeAlias = TrainRun | BundleWeights


def open_pretrained(name: str) -> Pretrained:
    """Open a run's folder, or else a bundle's folder or a shipped bundle's name.

    Raises:
        InputError: a run of another schema.
        BundleError: neither exists.
    """
    if (Path(name) / "run.json").is_file():
        return TrainRun.open(Path(name))
    return BundleWeights(bundle=Bundle.open(name))


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network and classifiers of its single frames.

    Attributes:
        model: in evaluation mode, on the CPU; of a bundle with its batch normalisations' statistics refitted.
        probe: linear classifier of its contexts; of a bundle fitted to training faces.
        classifier: the same model with the probe for a run, with its own head for a bundle.
    """

    model: AttentionCnnBiLstm
    probe: nn.Linear
    classifier: FrameClassifier


def load_network(given: Pretrained, dataset: Dataset) -> TrainedNetwork:
    """Load a network to fine-tune, without its head `crowd`, which would not fit another encoder.

    Raises:
        InputError: the run is not finished, or the bundle's graphs cannot be read into torch.
    """
    if isinstance(given, TrainRun):
        model, probe = given.load_model()
        model.crowd = None
        return TrainedNetwork(model=model, probe=probe, classifier=FrameClassifier(model, probe).eval())
    model = given.load_model()
    model.crowd = None
    refit_batch_norm(model, training_faces(dataset, given.preprocess))
    probe = probe_of_faces(model, dataset, given.recipe)
    return TrainedNetwork(model=model, probe=probe, classifier=FrameClassifier(model).eval())


def initial_network(given: Pretrained, recipe: TrainRecipe, dataset: Dataset) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Load the weights to start from and a probe.

    The probe is fitted where `given` is a bundle or has other labels.
    """
    probe: nn.Linear | None = None
    if isinstance(given, TrainRun):
        model, trained = given.load_model()
        probe = trained if given.labels == dataset.expressions else None
    else:
        model = given.load_model()
        refit_batch_norm(model, training_faces(dataset, recipe.preprocess))
    return model, probe or probe_of_faces(model, dataset, recipe)


def expect_initial(given: Pretrained, recipe: TrainRecipe) -> None:
    """Refuse weights that do not fit the recipe.

    Raises:
        InputError: their shape is another, or their faces are prepared otherwise.
    """
    if recipe.model != given.config or given.preprocess != recipe.preprocess:
        raise InputError(
            f"--init {given.path}: got another shape or preprocessing, expected the recipe's; train its own recipe "
            "(fer-edge train RUN|BUNDLE --init RUN|BUNDLE), or make it smaller (fer-edge prune)"
        )


def expect_teachers(teachers: Sequence[Pretrained], dataset: Dataset, recipe: TrainRecipe) -> None:
    """Refuse teachers of other labels, or whose faces are prepared otherwise than the recipe's.

    Raises:
        InputError: one does not fit.
    """
    for each in teachers:
        dataset.expect_expressions(each.labels, of=f"the teacher {each.path}")
        # Normalisation is inside each network; all else must agree, since teachers see the student's faces.
        if replace(each.preprocess, normalisation=recipe.preprocess.normalisation) != recipe.preprocess:
            raise InputError(
                f"teacher {each.path}: got preprocessing {each.preprocess}, expected the recipe's {recipe.preprocess}"
            )


def teacher_facts(teachers: Sequence[Pretrained]) -> Any:
    """Return what a run records of its teachers: one identity, or a list of several."""
    identities = [each.identity for each in teachers]
    return identities[0] if len(identities) == 1 else identities


def load_teachers(teachers: Sequence[Pretrained]) -> Teachers:
    """Load teachers: runs with their linear probe, bundles with their own head at T = 1."""
    return Teachers(
        [
            FrameClassifier(*each.load_model()) if isinstance(each, TrainRun) else FrameClassifier(each.load_model())
            for each in teachers
        ]
    )
