"""Networks to learn from: what they say of a face, and how what several say becomes one lesson."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fer_edge.core.errors import InputError
from fer_edge.core.json import encode as plain
from fer_edge.model.config import ModelConfig
from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.checkpoint import cache_key, weights_sha256
from fer_edge.train.recipe import LossSpec

__all__ = [
    "ALL_PARTS",
    "Lesson",
    "Output",
    "Part",
    "Sight",
    "StudentSight",
    "Teachers",
    "followed_logits",
    "joined_lesson",
    "look",
    "taught_parts",
]

Part: TypeAlias = str  # one of ALL_PARTS
ALL_PARTS: Final[tuple[Part, ...]] = ("logits", "features", "regions", "maps")
Output: TypeAlias = Mapping[Part, Tensor]
"""What one teacher says of B faces: logits (B, classes), and, where they are asked for, features (B, F), regions
(B, tokens) and maps (B, cells)."""

_SMALLEST: Final = 1e-8
"""Probabilities are held above this before their logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a frame encoder makes of B faces on its way.

    Attributes:
        features: (B, F), the encoder's output.
        regions: (B, tokens), the attention's weights over the region tokens; each row sums to one.
        maps: float32 (B, cells), the energy of the CNN's last feature map by place: the sum of its squares over the
            channels, scaled to length one (activation-map attention, Zagoruyko and Komodakis 2017, arXiv 1612.03928).
    """

    features: Tensor
    regions: Tensor
    maps: Tensor


def look(model: AttentionCnnBiLstm, faces: Tensor) -> Sight:
    """Encode faces, uint8 (B, S, S), and keep what lies on the way."""
    maps = model.encoder.cnn(model.encoder.normalise(faces))
    features, regions = model.encoder.read(maps)
    energy = maps.float().square().sum(dim=1).flatten(1)
    return Sight(features=features, regions=regions, maps=normalize(energy, dim=1))


class StudentSight(nn.Module):
    """A student that is watched on its way: one forward for data parallelism, with the adapter that it alone needs.

    The adapter carries the student's features into the teachers' space (FitNets, arXiv 1412.6550) and goes when the
    training ends.
    """

    def __init__(self, student: Classifier, *, width: int) -> None:
        super().__init__()
        self.student = student
        self.adapter = nn.Linear(student.model.config.feature_size, width, bias=False) if width else nn.Identity()

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Sight]:
        """uint8 (B, S, S) -> logits (B, classes), context (B, F), and the sight, its features carried over."""
        sight = look(self.student.model, faces)
        logits, context = self.student.read(sight.features)
        return logits, context, Sight(features=self.adapter(sight.features), regions=sight.regions, maps=sight.maps)


class Classifier(Protocol):
    """What a teacher or a student is: a network with a classifier of single frames."""

    model: AttentionCnnBiLstm

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames' features (B, F) -> logits (B, classes) and contexts (B, F)."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is to be followed on B faces.

    Attributes:
        logits: (B, classes); their softmax at the lesson's temperature is the distribution to follow.
        features: (B, F) of length one for every teacher, side by side; None where they are not asked for.
        regions: (B, tokens), mean attention over the region tokens; or None.
        maps: (B, cells), mean energy of the feature maps by place; or None.
    """

    logits: Tensor
    features: Tensor | None = None
    regions: Tensor | None = None
    maps: Tensor | None = None


def taught_parts(spec: LossSpec) -> tuple[Part, ...]:
    """What a recipe wants to hear of its teachers."""
    weights: dict[Part, float] = {
        "features": spec.distil_features, "regions": spec.distil_regions, "maps": spec.distil_maps,
    }  # fmt: skip
    return ("logits", *(name for name, weight in weights.items() if weight))


def joined_lesson(outputs: Sequence[Output], temperature: float) -> Lesson:
    """The lesson of several teachers: the mean of their probabilities at the temperature.

    Following that mean has the gradient of following every teacher and averaging the losses, because the mean of
    KL(p_i, q) differs from KL(mean p_i, q) by nothing that q can change. A geometric mean would let one confident
    teacher veto a class.

    Args:
        outputs: of each teacher, at least one, for the same faces.
        temperature: of the softmax.
    """
    parts: dict[str, Tensor] = {"logits": outputs[0]["logits"]}
    if len(outputs) > 1:
        softened = [torch.softmax(each["logits"].float() / temperature, dim=1) for each in outputs]
        parts["logits"] = followed_logits(torch.stack(softened).mean(dim=0), temperature)
    if "features" in outputs[0]:
        parts["features"] = torch.cat([normalize(each["features"].float(), dim=1) for each in outputs], dim=1)
    if "regions" in outputs[0]:
        parts["regions"] = torch.stack([each["regions"].float() for each in outputs]).mean(dim=0)
    if "maps" in outputs[0]:
        parts["maps"] = torch.stack([each["maps"].float() for each in outputs]).mean(dim=0)
    return Lesson(**parts)


def followed_logits(probabilities: Tensor, temperature: float) -> Tensor:
    """Logits whose softmax at the temperature is the given distribution, (B, classes)."""
    return temperature * probabilities.clamp(min=_SMALLEST).log()


class Teachers(nn.Module):
    """One teacher or several, for inference alone: their encoders are folded copies.

    Attributes:
        keys: of every teacher, what depends on its weights and shape alone.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Take over finished classifiers (`FrameClassifier` or `StillClassifier`)."""
        super().__init__()
        self.keys = tuple(_key(member) for member in members)
        self.members = nn.ModuleList(_quick(member) for member in members)

    @classmethod
    def of(cls, teacher: nn.Module) -> Teachers:
        """One teacher as a company of one; a company as it is."""
        return teacher if isinstance(teacher, Teachers) else cls([teacher])

    @property
    def feature_size(self) -> int:
        """Width of all teachers' features side by side."""
        return sum(_classifier(member).model.config.feature_size for member in self.members)

    def expect_fit(self, student: ModelConfig, spec: LossSpec) -> None:
        """Refuse what a student of this shape cannot be taught.

        Raises:
            InputError: attention is to be followed, and a teacher attends to other regions, or sees another grid.
        """
        for member in self.members:
            config = _classifier(member).model.config
            if config.input_size != student.input_size or config.classes != student.classes:
                raise InputError(
                    f"a teacher sees {config.input_size} x {config.input_size} pixels and tells {config.classes} "
                    f"expressions apart, the student {student.input_size} and {student.classes}; they must agree"
                )
            if spec.distil_regions and config.token_grid != student.token_grid:
                raise InputError(
                    f"loss.distil_regions follows attention over {config.tokens} regions, and the student has "
                    f"{student.tokens}; set model.token_grid to {config.token_grid} or loss.distil_regions to 0"
                )

    @torch.no_grad()
    def outputs(self, member: int, faces: Tensor, parts: Sequence[Part]) -> dict[Part, Tensor]:
        """What one teacher says of prepared faces, uint8 (B, S, S)."""
        teacher = _classifier(self.members[member])
        sight = look(teacher.model, faces)
        told: dict[Part, Tensor] = {
            "logits": teacher.read(sight.features)[0],
            "features": sight.features,
            "regions": sight.regions,
            "maps": sight.maps,
        }
        return {part: told[part] for part in parts}

    def lesson(self, faces: Tensor, spec: LossSpec) -> Lesson:
        """What all of them say together, now."""
        parts = taught_parts(spec)
        told = [self.outputs(member, faces, parts) for member in range(len(self.members))]
        return joined_lesson(told, spec.distil_temperature)


def _classifier(member: nn.Module) -> Classifier:
    return member  # type: ignore[return-value]  # a module list knows no more of its members


def _key(member: nn.Module) -> str:
    model = _classifier(member).model
    shape = {"config": plain(model.config), "normalisation": model.normalisation}
    return cache_key({**shape, "kind": type(member).__name__, "weights": weights_sha256(member)})


def _quick(member: nn.Module) -> nn.Module:
    quick = copy.deepcopy(member).eval()
    _classifier(quick).model.encoder = folded(_classifier(member).model.encoder)
    return quick
