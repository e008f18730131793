"""Distillation: outputs of one or several teachers, combined into targets, and the loss of following them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fer_edge.core.errors import InputError
from fer_edge.core.json import encode
from fer_edge.model.config import ModelConfig
from fer_edge.train.checkpoint import cache_key, weights_sha256
from fer_edge.train.frame_classifier import FrameClassifier, FrameOutput, inference_copy
from fer_edge.train.losses import decoupled_losses, distillation_losses, feature_losses, region_losses
from fer_edge.train.recipe import LossSpec

__all__ = [
    "PARTS",
    "Part",
    "TeacherOutput",
    "TeacherTargets",
    "Teachers",
    "combine_teachers",
    "distilled_parts",
    "followed_losses",
    "logits_of",
]

Part: TypeAlias = str  # one of PARTS
PARTS: Final[tuple[Part, ...]] = ("logits", "features", "regions", "maps")
TeacherOutput: TypeAlias = Mapping[Part, Tensor]
"""What one teacher computes of B faces: the fields of `FrameOutput` that are asked for."""

_SMALLEST: Final = 1e-8
"""Lower bound of probabilities before the logarithm."""


@dataclass(frozen=True, kw_only=True)
class TeacherTargets:
    """The targets that teachers give for B faces.

    Attributes:
        logits: (B, classes); their softmax at the distillation temperature is the distribution to follow.
        features: (B, F), features of every teacher, each of length one, side by side; or None.
        regions: (B, tokens), mean attention over the region tokens; or None.
        maps: (B, cells), mean energy of the feature maps by position; or None.
    """

    logits: Tensor
    features: Tensor | None = None
    regions: Tensor | None = None
    maps: Tensor | None = None


def distilled_parts(spec: LossSpec) -> tuple[Part, ...]:
    """Return the teacher outputs that a recipe uses."""
    weights = {"features": spec.distil_features, "regions": spec.distil_regions, "maps": spec.distil_maps}
    return ("logits", *(name for name, weight in weights.items() if weight))


def combine_teachers(outputs: Sequence[TeacherOutput], temperature: float) -> TeacherTargets:
    """Combine the outputs of several teachers: the mean of their probabilities at the temperature.

    Following the mean has the gradient of following every teacher and averaging the losses. A geometric mean would let
    one confident teacher veto a class.

    Args:
        outputs: of each teacher, at least one, for the same faces.
    """
    parts: dict[str, Tensor] = {"logits": outputs[0]["logits"]}
    if len(outputs) > 1:
        softened = [torch.softmax(each["logits"].float() / temperature, dim=1) for each in outputs]
        parts["logits"] = logits_of(torch.stack(softened).mean(dim=0), temperature)
    if "features" in outputs[0]:
        parts["features"] = torch.cat([normalize(each["features"].float(), dim=1) for each in outputs], dim=1)
    for name in {"regions", "maps"} & outputs[0].keys():
        parts[name] = torch.stack([each[name].float() for each in outputs]).mean(dim=0)
    return TeacherTargets(**parts)


def logits_of(probabilities: Tensor, temperature: float) -> Tensor:
    """Return logits whose softmax at the temperature is the given distribution, (B, classes)."""
    return temperature * probabilities.clamp(min=_SMALLEST).log()


def followed_losses(
    output: FrameOutput, targets: TeacherTargets, labels: Tensor, spec: LossSpec
) -> tuple[Tensor, Tensor]:
    """Compute every row's divergence from the teachers' probabilities, and its loss on their intermediate outputs.

    Args:
        labels: int64 (B,).
        spec: form, temperature and weights.

    Returns:
        both float32 (B,).
    """
    if spec.distil_form == "dkd":
        logits = decoupled_losses(output.logits, targets.logits, labels, spec.distil_temperature, spec.distil_beta)
    else:
        logits = distillation_losses(output.logits, targets.logits, spec.distil_temperature)
    # Zero times the features: data parallelism expects a gradient of the adapter at every step.
    hints = 0 * output.features.float().sum(dim=1)
    if targets.features is not None:
        hints = hints + spec.distil_features * feature_losses(output.features, targets.features)
    if targets.regions is not None:
        hints = hints + spec.distil_regions * region_losses(output.regions, targets.regions)
    if targets.maps is not None:
        hints = hints + spec.distil_maps * feature_losses(output.maps, targets.maps)
    return logits, hints


class Teachers(nn.Module):
    """One teacher or several, for inference: folded copies of their networks.

    Attributes:
        keys: cache key of each teacher, over its weights and shape.
    """

    def __init__(self, members: Sequence[FrameClassifier]) -> None:
        super().__init__()
        self.keys = tuple(_key(member) for member in members)
        self.members = nn.ModuleList(inference_copy(member) for member in members)

    def _member(self, index: int) -> FrameClassifier:
        member = self.members[index]
        assert isinstance(member, FrameClassifier)
        return member

    @property
    def feature_size(self) -> int:
        """Width of all teachers' features side by side."""
        return sum(self._member(index).model.config.feature_size for index in range(len(self.members)))

    def expect_fit(self, student: ModelConfig, spec: LossSpec) -> None:
        """Refuse a student that cannot follow these teachers.

        Raises:
            InputError: input size, classes or, where attention is followed, region tokens differ.
        """
        for index in range(len(self.members)):
            config = self._member(index).model.config
            if (config.input_size, config.classes) != (student.input_size, student.classes):
                raise InputError(
                    f"teacher: got {config.input_size} pixels and {config.classes} expressions, expected the student's "
                    f"{student.input_size} and {student.classes}"
                )
            if spec.distil_regions and config.token_grid != student.token_grid:
                raise InputError(
                    f"loss.distil_regions: got a teacher with {config.tokens} region tokens, expected the student's "
                    f"{student.tokens}; set model.token_grid to {config.token_grid} or loss.distil_regions to 0"
                )

    @torch.no_grad()
    def outputs(self, member: int, faces: Tensor, parts: Sequence[Part]) -> dict[Part, Tensor]:
        """Compute one teacher's outputs for prepared faces, uint8 (B, S, S)."""
        output = self._member(member)(faces)
        return {part: getattr(output, part) for part in parts}

    def targets(self, faces: Tensor, spec: LossSpec) -> TeacherTargets:
        """Compute the combined targets for prepared faces, uint8 (B, S, S)."""
        parts = distilled_parts(spec)
        outputs = [self.outputs(member, faces, parts) for member in range(len(self.members))]
        return combine_teachers(outputs, spec.distil_temperature)


def _key(member: FrameClassifier) -> str:
    model = member.model
    facts = {"config": encode(model.config), "normalisation": model.normalisation, "probe": member.probe is not None}
    return cache_key({**facts, "weights": weights_sha256(member)})
