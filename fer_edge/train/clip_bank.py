"""Features of every training clip's frames, encoded once: the encoder stands still, the head trains in minutes.

The features of clips are kept in the cache folder under a key of all they depend on, so that another head on the same
encoder begins at once.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_edge.data import StillSet
from fer_edge.data.cache import default_cache_folder
from fer_edge.data.ckplus import CkPlusSequence
from fer_edge.data.clips import BLOCK, ClipPlan, make_clips
from fer_edge.decode import encode as plain
from fer_edge.errors import InputError, OutputError
from fer_edge.files import sha256_bytes, writing
from fer_edge.labels import EXPRESSIONS
from fer_edge.model.network import AttentionCnnBiLstm, FrameEncoder
from fer_edge.preprocess import prepare_stills
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.frame_stage import autocast
from fer_edge.train.losses import soft_targets
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import TrainRecipe

__all__ = ["ClipBank", "FrameFeatures", "encode_clips", "encode_plan", "encode_sequences"]

_PART: Final = 32 * BLOCK  # clips encoded and kept at once
_VERSION: Final = 1  # of the key: raised when the clips of a plan change
_CKPLUS_STEP: Final = 3  # CK+ was taken at 30 frames a second, windows hold 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipBank:
    """Features of clips, and what each frame is to be taken for.

    Attributes:
        features: float16 (N, T, F).
        stills: float16 (M, F), the stills as they are.
        rows: int64 (N, T), each frame's row in `targets`; -1 where a frame has no label of its own.
        targets: float32 (M, classes).
        labels: int64 (M,), the class that each row of `targets` comes from.
    """

    features: Tensor
    stills: Tensor
    rows: Tensor
    targets: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def joined(self, other: ClipBank) -> ClipBank:
        """Both banks' clips in one; they must be of one length."""
        further = torch.where(other.rows < 0, other.rows, other.rows + len(self.targets))
        return ClipBank(
            features=torch.cat((self.features, other.features)),
            stills=torch.cat((self.stills, other.stills)),
            rows=torch.cat((self.rows, further)),
            targets=torch.cat((self.targets, other.targets)),
            labels=torch.cat((self.labels, other.labels)),
        )


class FrameFeatures:
    """The frame encoder for inference alone: normalisations folded into convolutions, channels last.

    On a CPU with native bf16 that is two to three times as fast as the module that is trained.
    """

    def __init__(self, model: AttentionCnnBiLstm, recipe: TrainRecipe, device: torch.device) -> None:
        folded = _folded(copy.deepcopy(model.encoder).eval())
        self._encoder: nn.Module = folded.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recipe = recipe
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], *, size: int = 128) -> Tensor:
        """Features of stills or clips as the data set has them: uint8 (..., H, W) -> float32 (..., F) on the CPU."""
        frames = prepare_stills(images.reshape(-1, *images.shape[-2:]), self._recipe.preprocess)
        parts = []
        for start in range(0, len(frames), size):
            with autocast(self._recipe, self._device):
                batch = torch.from_numpy(np.array(frames[start : start + size])).to(self._device)
                parts.append(self._encoder(batch)[0].float().cpu())
        return torch.cat(parts).reshape(*images.shape[:-2], -1)


def _folded(encoder: FrameEncoder) -> FrameEncoder:
    for module in list(encoder.modules()):
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, normalisation = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    module[place] = nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), normalisation.eval())
                    module[place + 1] = nn.Identity()
    return encoder


def encode_clips(
    model: AttentionCnnBiLstm, stills: StillSet, recipe: TrainRecipe, device: torch.device, report: Reporter
) -> ClipBank:
    """A clip of every still, as the recipe's `sequence` says.

    Args:
        model: its encoder is used.
        stills: the training split.
        recipe: preprocessing, clips, precision, seed, and what targets are made of.
        device: what encodes.
        report: told of progress.
    """
    plan = recipe.sequence.clip_plan(seed=recipe.seed)
    labels = np.asarray(stills.labels)
    key = _key(model, stills, recipe, plan)
    faces, parts = FrameFeatures(model, recipe, device), []
    for start in range(0, len(labels), _PART):
        path = default_cache_folder() / f"clips-{key}" / f"{start:07d}.safetensors"
        part = _kept(path)
        if part is None:
            part = _encode_part(faces, stills, plan, start, report)
            _keep(path, part)
        parts.append(part)
        report.step("features", min(start + _PART, len(labels)), len(labels))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    votes = None if stills.votes is None else torch.from_numpy(np.array(stills.votes))
    known = torch.from_numpy(labels.astype(np.int64))
    return ClipBank(
        features=found["features"].to(device),
        stills=found["stills"].to(device),
        rows=found["rows"].to(device),
        targets=soft_targets(known, votes, recipe.loss, recipe.model.classes).to(device),
        labels=known.to(device),
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
    labels = torch.tensor(known)
    return ClipBank(
        features=torch.stack(features).half().to(device),
        stills=torch.cat(ends).half().to(device),
        rows=torch.stack(rows).to(device),
        targets=soft_targets(labels, None, recipe.loss, recipe.model.classes).to(device),
        labels=labels.to(device),
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


def _key(model: AttentionCnnBiLstm, stills: StillSet, recipe: TrainRecipe, plan: ClipPlan) -> str:
    key = {"plan": plain(plan), "stills": stills.sha256, "preprocess": plain(recipe.preprocess), "version": _VERSION}
    key["encoder"] = sha256_bytes(b"".join(_bytes(model.encoder)))
    return sha256_bytes(json.dumps(key, sort_keys=True).encode())[:16]


def _bytes(module: nn.Module) -> Iterator[bytes]:
    for name, tensor in module.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().numpy().tobytes()


def _kept(path: Path) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)[0]
    except InputError as error:
        _log.warning("the clips are encoded anew: %s", error)
        return None


def _keep(path: Path, part: dict[str, Tensor]) -> None:
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, part, {})
    except OutputError as error:
        _log.warning("the clips' features are not kept for the next time: %s", error)
