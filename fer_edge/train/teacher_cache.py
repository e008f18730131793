"""A bank of views: K random versions of every training face, and what the teachers say of each, asked once.

Views are people's faces, so they are never written: a view is its seed, and is made anew whenever an epoch works on
it. Kept in the cache folder is what the teachers said, under a key of all it hangs on, with the hash of the view it was
said of: a machine or a version that draws another view asks its teachers again.
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
from fer_edge.core.json import encode as plain
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.checkpoint import cache_key, keep, kept
from fer_edge.train.distillation import ALL_PARTS, Lesson, Part, Teachers, followed_logits, joined_lesson, taught_parts
from fer_edge.train.distributed import Processes, autocast
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import AugmentSpec, TrainRecipe

__all__ = ["View", "ViewBank", "make_view"]

_VERSION: Final = 1  # of the key: raised when what a teacher is asked changes
_SEED: Final = 7_340_033  # of the views: a recipe's own is left out, so that students of other seeds share a bank
_BLOCK: Final = 256  # faces changed at once
_ASKED: Final = 256  # faces that a teacher sees at once
_WHAT: Final = "the teachers' answers"
_log = logging.getLogger(__name__)


def make_view(images: Tensor, spec: AugmentSpec, number: int) -> Tensor:
    """One random version of every face, the same whenever it is made.

    Args:
        images: uint8 (N, S, S).
        spec: strengths; faces are not mixed.
        number: which view.

    Returns:
        uint8 (N, S, S), before the median filter.
    """
    generator = seeded(images.device, _SEED, number)
    return torch.cat([augment_faces(block, spec, generator) for block in torch.split(images, _BLOCK)])


@dataclass(frozen=True, kw_only=True)
class View:
    """One view, and what the teachers say of it.

    Attributes:
        images: uint8 (N, S, S), before the median filter.
        told: of every teacher, float16 tensors of N rows; empty where the consensus is all that is followed.
        consensus: float32 (N, classes), the mean of the teachers' probabilities over all views of a face; None where
            nothing is taken from it.
        share: of the probabilities to follow that is taken from the consensus.
    """

    images: Tensor
    told: tuple[Mapping[Part, Tensor], ...]
    consensus: Tensor | None = None
    share: float = 0.0

    def lesson(self, rows: Tensor, temperature: float) -> Lesson:
        """What is to be followed on some rows, int64 (B,)."""
        if self.consensus is not None and not self.told:
            return Lesson(logits=followed_logits(self.consensus[rows], temperature))
        some = [{part: value[rows].float() for part, value in told.items()} for told in self.told]
        lesson = joined_lesson(some, temperature)
        if self.consensus is None:
            return lesson
        own = torch.softmax(lesson.logits / temperature, dim=1)
        return replace(lesson, logits=followed_logits(torch.lerp(own, self.consensus[rows], self.share), temperature))


@dataclass(frozen=True, kw_only=True)
class ViewBank:
    """The views of a training split and the teachers to ask.

    Attributes:
        teachers: asked about a view when an epoch first works on it, unless they were asked before.
        train: the faces.
        recipe: augmentation, median filter, precision, and `loss.distil_views`, the number of views.
        peers: process 0 asks, the others read what it kept.
    """

    teachers: Teachers
    train: DeviceFaces
    recipe: TrainRecipe
    peers: Processes
    _consensus: list[Tensor] = field(default_factory=list, init=False, repr=False)  # one, once all views were asked of

    def view(self, epoch: int, report: Reporter) -> View:
        """The view of an epoch, with the teachers' answers; the first one may want those of all.

        What all views of a face agree on holds for a view that no teacher has seen: where nothing else is followed,
        every epoch works on new ones.
        """
        loss = self.recipe.loss
        if loss.distil_consensus and not self._consensus:
            self._consensus.append(self._agreed(report))
        if loss.distil_consensus == 1 and taught_parts(loss) == ("logits",):
            images = make_view(self.train.images, self.recipe.augment, loss.distil_views + epoch)
            return View(images=images, told=(), consensus=self._consensus[0], share=1.0)
        view = self._view(epoch % loss.distil_views, report)
        if not loss.distil_consensus:
            return view
        return replace(view, consensus=self._consensus[0], share=loss.distil_consensus)

    def _view(self, number: int, report: Reporter) -> View:
        images = make_view(self.train.images, self.recipe.augment, number)
        if not self.peers.leads:
            torch.distributed.barrier()
        told = tuple(self._told(member, number, images, report) for member in range(len(self.teachers.keys)))
        if self.peers.leads and self.peers.world > 1:
            torch.distributed.barrier()
        return View(images=images, told=told)

    def _agreed(self, report: Reporter) -> Tensor:
        """What the teachers say of every face on the mean over all its views: float32 (N, classes), probabilities."""
        views, temperature = self.recipe.loss.distil_views, self.recipe.loss.distil_temperature
        rows = torch.arange(len(self.train), device=self.train.images.device)
        total: Tensor | None = None
        for number in range(views):
            said = torch.softmax(self._view(number, report).lesson(rows, temperature).logits / temperature, dim=1)
            total = said if total is None else total + said
        assert total is not None  # distil_consensus wants at least two views
        return total / views

    def _told(self, member: int, number: int, images: Tensor, report: Reporter) -> Mapping[Part, Tensor]:
        parts = taught_parts(self.recipe.loss)
        path = default_cache_folder() / f"lessons-{self._key(member)}" / f"{number:04d}.safetensors"
        seen = sha256_bytes(images.cpu().numpy().tobytes())
        found = kept(path, what=_WHAT)
        if found is not None and found[1].get("view_sha256") != seen:
            _log.warning("%s: made of another view, by another machine or version; the teacher is asked again", path)
            found = None
        told = {} if found is None else found[0]
        if not set(parts) <= set(told):
            wanted = tuple(part for part in ALL_PARTS if part in parts or part in told)
            told = dict(self._ask(member, images, wanted, report))
            keep(path, told, {"view_sha256": seen}, what=_WHAT)
        return {part: told[part].to(images.device) for part in parts}

    def _ask(self, member: int, images: Tensor, parts: tuple[Part, ...], report: Reporter) -> dict[Part, Tensor]:
        told: list[dict[Part, Tensor]] = []
        for start in range(0, len(images), _ASKED):
            faces = median_filter(images[start : start + _ASKED], self.recipe.preprocess.median)
            with autocast(self.recipe.precision, images.device):
                answers = self.teachers.outputs(member, faces, parts)
            told.append({part: value.half().cpu() for part, value in answers.items()})
            report.step("teachers", min(start + _ASKED, len(images)), len(images))
        return {part: torch.cat([each[part] for each in told]) for part in parts}

    def _key(self, member: int) -> str:
        facts = {
            "teacher": self.teachers.keys[member],
            "augment": plain(replace(self.recipe.augment, mix=0.0)),
            "median": self.recipe.preprocess.median,
            "precision": self.recipe.precision,
            "device": self.train.images.device.type,
            "faces": self._faces_sha256,
            "version": _VERSION,
        }
        return cache_key(facts)

    @cached_property
    def _faces_sha256(self) -> str:
        return sha256_bytes(self.train.images.cpu().numpy().tobytes())
