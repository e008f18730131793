"""Cached teacher outputs: K random views of every training face, each shown to the teachers once.

Views show people, so they are never written: a view is generated from its seed. The cache folder holds the teachers'
outputs under a key over every input, with the hash of the view; a machine that generates another view recomputes them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from fer_edge.core.files import default_cache_folder, sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.types import Progress
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.checkpoint import cache_key, load_cached, save_cached
from fer_edge.train.distillation import (
    PARTS,
    Part,
    TeacherOutput,
    Teachers,
    TeacherTargets,
    combine_teachers,
    distilled_parts,
    logits_of,
)
from fer_edge.train.distributed import Processes, autocast
from fer_edge.train.recipe import AugmentSpec, TrainRecipe

__all__ = ["TeacherCache", "View", "make_view"]

_VERSION: Final = 2  # of the key: raised when the outputs or their storage change
_SEED: Final = 7_340_033  # of the views; a recipe's own seed is left out, so that students of other seeds share a cache
_BLOCK: Final = 256  # faces augmented, or shown to a teacher, at once
_log = logging.getLogger(__name__)


def make_view(images: Tensor, spec: AugmentSpec, number: int) -> Tensor:
    """Generate one random view of every face, reproducible by its number.

    Args:
        images: uint8 (N, S, S).
        spec: strengths; faces are not mixed.

    Returns:
        uint8 (N, S, S), before the median filter.
    """
    generator = seeded(images.device, _SEED, number)
    return torch.cat([augment_faces(block, spec, generator) for block in torch.split(images, _BLOCK)])


@dataclass(frozen=True, kw_only=True)
class View:
    """One view and the teachers' outputs for it.

    Attributes:
        images: uint8 (N, S, S), before the median filter.
        outputs: of every teacher, float16 tensors of N rows; empty where only the consensus is followed.
        consensus: float32 (N, classes), mean of the teachers' probabilities over all views of a face; or None.
        share: weight of the consensus in the probabilities to follow.
    """

    images: Tensor
    outputs: tuple[TeacherOutput, ...]
    consensus: Tensor | None = None
    share: float = 0.0

    def targets(self, rows: Tensor, temperature: float) -> TeacherTargets:
        """Return the targets of some rows, int64 (B,)."""
        if self.consensus is not None and not self.outputs:
            return TeacherTargets(logits=logits_of(self.consensus[rows], temperature))
        some = [{part: value[rows].float() for part, value in output.items()} for output in self.outputs]
        targets = combine_teachers(some, temperature)
        if self.consensus is None:
            return targets
        own = torch.softmax(targets.logits / temperature, dim=1)
        return replace(targets, logits=logits_of(torch.lerp(own, self.consensus[rows], self.share), temperature))


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """The views of a training split and the teachers' outputs for them.

    Attributes:
        teachers: run on a view when an epoch first uses it, unless the cache has their outputs.
        train: the faces.
        recipe: augmentation, median filter, precision, and `loss.distil_views`, the number of views.
        peers: process 0 runs the teachers, the others read the cache.
    """

    teachers: Teachers
    train: DeviceFaces
    recipe: TrainRecipe
    peers: Processes
    _consensus: list[Tensor] = field(default_factory=list, init=False, repr=False)  # one tensor, once computed

    def view(self, epoch: int, progress: Progress) -> View:
        """Return the view of an epoch, with the teachers' outputs.

        The consensus also holds for views that no teacher saw: where nothing else is followed, every epoch uses new
        views.
        """
        loss = self.recipe.loss
        if loss.distil_consensus and not self._consensus:
            self._consensus.append(self._mean_probabilities(progress))
        if loss.distil_consensus == 1 and distilled_parts(loss) == ("logits",):
            images = make_view(self.train.images, self.recipe.augment, loss.distil_views + epoch)
            return View(images=images, outputs=(), consensus=self._consensus[0], share=1.0)
        view = self._view(epoch % loss.distil_views, progress)
        if not loss.distil_consensus:
            return view
        return replace(view, consensus=self._consensus[0], share=loss.distil_consensus)

    def _view(self, number: int, progress: Progress) -> View:
        images = make_view(self.train.images, self.recipe.augment, number)
        if not self.peers.leads:
            self.peers.barrier()
        outputs = tuple(self._outputs(member, number, images, progress) for member in range(len(self.teachers.keys)))
        if self.peers.leads:
            self.peers.barrier()
        return View(images=images, outputs=outputs)

    def _mean_probabilities(self, progress: Progress) -> Tensor:
        """Mean of the teachers' probabilities over all views: float32 (N, classes)."""
        views, temperature = self.recipe.loss.distil_views, self.recipe.loss.distil_temperature
        rows = torch.arange(len(self.train), device=self.train.images.device)
        total = torch.zeros((), device=rows.device)
        for number in range(views):
            logits = self._view(number, progress).targets(rows, temperature).logits
            total = total + torch.softmax(logits / temperature, dim=1)
        return total / views

    def _outputs(self, member: int, number: int, images: Tensor, progress: Progress) -> Mapping[Part, Tensor]:
        parts = distilled_parts(self.recipe.loss)
        path = default_cache_folder() / f"teachers-{self._key(member)}" / f"{number:04d}.safetensors"
        seen = sha256_bytes(images.cpu().numpy().tobytes())
        found = load_cached(path)
        if found is not None and found[1].get("view_sha256") != seen:
            _log.warning("%s: of another view, by another machine or version; computing it again", path)
            found = None
        cached = {} if found is None else found[0]
        if not set(parts) <= set(cached):
            wanted = tuple(part for part in PARTS if part in parts or part in cached)
            cached = self._compute(member, images, wanted, progress)
            save_cached(path, cached, {"view_sha256": seen})
        return {part: cached[part].to(images.device) for part in parts}

    def _compute(self, member: int, images: Tensor, parts: tuple[Part, ...], progress: Progress) -> dict[Part, Tensor]:
        computed: list[dict[Part, Tensor]] = []
        for start in range(0, len(images), _BLOCK):
            faces = median_filter(images[start : start + _BLOCK], self.recipe.preprocess.median)
            with autocast(self.recipe.precision, images.device):
                outputs = self.teachers.outputs(member, faces, parts)
            computed.append({part: value.half().cpu() for part, value in outputs.items()})
            progress("teachers", min(start + _BLOCK, len(images)), len(images))
        return {part: torch.cat([each[part] for each in computed]) for part in parts}

    def _key(self, member: int) -> str:
        return cache_key(
            {
                "teacher": self.teachers.keys[member],
                "augment": encode(replace(self.recipe.augment, mix=0.0)),
                "median": self.recipe.preprocess.median,
                "precision": self.recipe.precision,
                "device": self.train.images.device.type,
                "faces": self._faces_sha256,
                "version": _VERSION,
            }
        )

    @cached_property
    def _faces_sha256(self) -> str:
        return sha256_bytes(self.train.images.cpu().numpy().tobytes())
