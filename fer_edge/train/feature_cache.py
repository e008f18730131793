"""Features of every training clip's frames, encoded once: the encoder stands still, the head trains in minutes.

The features of clips are kept in the cache folder under a key of all they depend on, so that another head on the same
encoder begins at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.errors import InputError
from fer_edge.core.files import default_cache_folder
from fer_edge.core.json import encode as plain
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Uint8
from fer_edge.data import StillSet
from fer_edge.data.ckplus import CkPlusSequence
from fer_edge.data.clips import BLOCK, ClipPlan, make_clips
from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.checkpoint import cache_key, keep, kept, weights_sha256
from fer_edge.train.distributed import autocast
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import TrainRecipe

__all__ = ["ClipBank", "FrameFeatures", "encode_clips", "encode_plan", "encode_sequences"]

_PART: Final = 32 * BLOCK  # clips encoded and kept at once
_VERSION: Final = 1  # of the key: raised when the clips of a plan change
_CKPLUS_STEP: Final = 3  # CK+ was taken at 30 frames a second, windows hold 10


@dataclass(frozen=True, kw_only=True)
class ClipBank:
    """Features of clips, and what each frame is to be taken for.

    Attributes:
        features: float16 (N, T, F).
        stills: float16 (M, F), the stills as they are.
        rows: int64 (N, T), each frame's row in `labels`; -1 where a frame has no label of its own.
        labels: int64 (M,), classes.
    """

    features: Tensor
    stills: Tensor
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def joined(self, other: ClipBank) -> ClipBank:
        """Both banks' clips in one; they must be of one length."""
        further = torch.where(other.rows < 0, other.rows, other.rows + len(self.labels))
        return ClipBank(
            features=torch.cat((self.features, other.features)),
            stills=torch.cat((self.stills, other.stills)),
            rows=torch.cat((self.rows, further)),
            labels=torch.cat((self.labels, other.labels)),
        )


class FrameFeatures:
    """The frame encoder for inference alone."""

    def __init__(self, model: AttentionCnnBiLstm, recipe: TrainRecipe, device: torch.device) -> None:
        self._encoder = folded(model.encoder).to(device)
        self._recipe = recipe
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Uint8, *, size: int = 128) -> Tensor:
        """Features of stills or clips as the data set has them: uint8 (..., H, W) -> float32 (..., F) on the CPU."""
        frames = prepare_stills(images.reshape(-1, *images.shape[-2:]), self._recipe.preprocess)
        parts = []
        for start in range(0, len(frames), size):
            with autocast(self._recipe.precision, self._device):
                batch = torch.from_numpy(np.array(frames[start : start + size])).to(self._device)
                parts.append(self._encoder(batch)[0].float().cpu())
        return torch.cat(parts).reshape(*images.shape[:-2], -1)


def encode_clips(
    model: AttentionCnnBiLstm, stills: StillSet, recipe: TrainRecipe, device: torch.device, report: Reporter
) -> ClipBank:
    """A clip of every still, as the recipe's `sequence` says.

    Args:
        model: its encoder is used.
        stills: the training split.
        recipe: preprocessing, clips, precision and seed.
        device: what encodes.
        report: told of progress.
    """
    plan = recipe.sequence.clip_plan(seed=recipe.seed)
    labels = np.asarray(stills.labels)
    key = _key(model, stills, recipe, plan, device)
    faces, parts = FrameFeatures(model, recipe, device), []
    for start in range(0, len(labels), _PART):
        path = default_cache_folder() / f"clips-{key}" / f"{start:07d}.safetensors"
        found = kept(path, what="the clips' features")
        if found is None:
            part = _encode_part(faces, stills, plan, start, report)
            keep(path, part, {}, what="the clips' features")
        else:
            part = found[0]
        parts.append(part)
        report.step("features", min(start + _PART, len(labels)), len(labels))
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return ClipBank(
        features=joined["features"].to(device),
        stills=joined["stills"].to(device),
        rows=joined["rows"].to(device),
        labels=torch.from_numpy(labels.astype(np.int64)).to(device),
    )


def encode_plan(faces: FrameFeatures, stills: StillSet, plan: ClipPlan, report: Reporter) -> Tensor:
    """Features of any other plan's clips, not kept: float32 (N, T, F) on the CPU."""
    found = []
    images, labels = np.asarray(stills.images), np.asarray(stills.labels)
    for block in make_clips(images, labels, plan):
        found.append(faces(block.frames))
        report.step("clips", block.start + len(block.frames), len(images))
    return torch.cat(found)


def encode_sequences(
    model: AttentionCnnBiLstm,
    sequences: tuple[CkPlusSequence, ...],
    recipe: TrainRecipe,
    device: torch.device,
    report: Reporter,
) -> ClipBank:
    """CK+ sequences from neutral to the peak, at a third of their frame rate.

    The first third of a sequence is neutral, the last third its expression; what lies between has no label. A sequence
    shorter than a clip begins with its first frame standing still.

    Raises:
        InputError: no sequence has one of the seven expressions and its neutral frames.
    """
    used = [each for each in sequences if each.expression in EXPRESSIONS and not each.cropped]
    if not used:
        raise InputError("none of the sequences runs from neutral to one of the seven expressions; expected CK+ whole")
    faces, length = FrameFeatures(model, recipe, device), recipe.sequence.clip_frames
    features, rows, ends, known = [], [], [], []
    for done, sequence in enumerate(used):
        chosen = list(range(len(sequence.frames) - 1, -1, -_CKPLUS_STEP))[::-1][-length:]
        found = faces(sequence.read_faces(chosen, size=recipe.preprocess.size))
        missing = length - len(chosen)
        features.append(torch.cat((found[:1].expand(missing, -1), found)))
        neutral, peak = 2 * done, 2 * done + 1
        place = torch.tensor(chosen) / (len(sequence.frames) - 1)
        shown = torch.where(place < 1 / 3, neutral, torch.where(place > 2 / 3, peak, -1))
        rows.append(torch.cat((torch.full((missing,), int(shown[0])), shown)))
        ends.append(found[[0, -1]])
        known += [EXPRESSIONS.index("neutral"), EXPRESSIONS.index(str(sequence.expression))]
        report.step("sequences", done + 1, len(used))
    return ClipBank(
        features=torch.stack(features).half().to(device),
        stills=torch.cat(ends).half().to(device),
        rows=torch.stack(rows).to(device),
        labels=torch.tensor(known, device=device),
    )


def _encode_part(
    faces: FrameFeatures, stills: StillSet, plan: ClipPlan, start: int, report: Reporter
) -> dict[str, Tensor]:
    images, labels = np.asarray(stills.images), np.asarray(stills.labels)
    features, alone, rows = [], [], []
    for block in make_clips(images, labels, plan, begin=start):
        stop = block.start + len(block.frames)
        features.append(faces(block.frames))
        alone.append(faces(images[block.start : stop]))
        rows.append(torch.from_numpy(block.stills))
        report.step("features", stop, len(labels))
        if stop >= start + _PART:
            break
    return {"features": torch.cat(features).half(), "stills": torch.cat(alone).half(), "rows": torch.cat(rows)}


def _key(model: AttentionCnnBiLstm, stills: StillSet, recipe: TrainRecipe, plan: ClipPlan, device: torch.device) -> str:
    key = {"plan": plain(plan), "stills": stills.sha256, "preprocess": plain(recipe.preprocess), "version": _VERSION}
    arithmetic = {"precision": recipe.precision, "device": device.type}
    return cache_key({**key, **arithmetic, "encoder": weights_sha256(model.encoder)})
