"""Features of clips: the fixed encoder runs once on every frame, and the head trains on the features.

Features of training clips are cached in the cache folder under a key over every input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.files import default_cache_folder
from fer_edge.core.json import encode
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Progress, Uint8
from fer_edge.data import StillSet
from fer_edge.data.clips import BLOCK, ClipPlan, make_clips
from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.checkpoint import cache_key, load_cached, save_cached, weights_sha256
from fer_edge.train.device import autocast
from fer_edge.train.recipe import TrainRecipe

__all__ = ["ClipFeatures", "FeatureExtractor"]

_PART: Final = 32 * BLOCK  # clips a cache file
_VERSION: Final = 1  # of the key: raised when the clips of a plan change


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """Features of clips and the label of each frame.

    Attributes:
        features: float16 (N, T, F).
        stills: float16 (M, F), of the uncorrupted stills.
        rows: int64 (N, T), each frame's row in `labels`; -1 for a frame without a label.
        labels: int64 (M,), classes.
        targets: float32 (M, C), distributions to train toward; None for the labels.
    """

    features: Tensor
    stills: Tensor
    rows: Tensor
    labels: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)


class FeatureExtractor:
    """The frame encoder of a model, for inference.

    Args:
        model: its encoder is copied.
        recipe: preprocessing, clips, precision and seed.
        device: to compute on.
    """

    def __init__(
        self, model: AttentionCnnBiLstm, recipe: TrainRecipe, device: torch.device, progress: Progress
    ) -> None:
        self._encoder = folded(model.encoder).to(device)
        self._weights_sha256 = weights_sha256(model.encoder)
        self._recipe, self._device, self._progress = recipe, device, progress

    @torch.inference_mode()
    def __call__(self, images: Uint8, *, size: int = 128) -> Tensor:
        """Encode stills or clips as the data set has them: uint8 (..., H, W) -> float32 (..., F) on the CPU."""
        frames = prepare_stills(images.reshape(-1, *images.shape[-2:]), self._recipe.preprocess)
        parts = []
        for start in range(0, len(frames), size):
            with autocast(self._recipe.precision, self._device):
                batch = torch.from_numpy(np.array(frames[start : start + size])).to(self._device)
                parts.append(self._encoder(batch)[0].float().cpu())
        return torch.cat(parts).reshape(*images.shape[:-2], -1)

    def training_clips(self, stills: StillSet) -> ClipFeatures:
        """Encode a clip of every still by the recipe's `sequence`, or read the features from the cache."""
        plan = self._recipe.sequence.clip_plan(seed=self._recipe.seed)
        labels, parts = np.asarray(stills.labels), []
        folder = default_cache_folder() / f"clips-{self._key(stills, plan)}"
        for start in range(0, len(labels), _PART):
            path = folder / f"{start:07d}.safetensors"
            cached = load_cached(path)
            part = self._encode_part(stills, plan, start) if cached is None else cached[0]
            if cached is None:
                save_cached(path, part, {})
            parts.append(part)
            self._progress("features", min(start + _PART, len(labels)), len(labels))
        whole = {name: torch.cat([part[name] for part in parts]).to(self._device) for name in parts[0]}
        return ClipFeatures(**whole, labels=torch.from_numpy(labels.astype(np.int64)).to(self._device))

    def clips(self, stills: StillSet, plan: ClipPlan) -> Tensor:
        """Encode the clips of another plan, uncached: float32 (N, T, F) on the CPU."""
        found = []
        images, labels = np.asarray(stills.images), np.asarray(stills.labels)
        for block in make_clips(images, labels, plan):
            found.append(self(block.frames))
            self._progress("clips", block.start + len(block.frames), len(images))
        return torch.cat(found)

    def _encode_part(self, stills: StillSet, plan: ClipPlan, start: int) -> dict[str, Tensor]:
        images, labels = np.asarray(stills.images), np.asarray(stills.labels)
        features, alone, rows = [], [], []
        for block in make_clips(images, labels, plan, begin=start):
            stop = block.start + len(block.frames)
            features.append(self(block.frames))
            alone.append(self(images[block.start : stop]))
            rows.append(torch.from_numpy(block.stills))
            self._progress("features", stop, len(labels))
            if stop >= start + _PART:
                break
        return {"features": torch.cat(features).half(), "stills": torch.cat(alone).half(), "rows": torch.cat(rows)}

    def _key(self, stills: StillSet, plan: ClipPlan) -> str:
        return cache_key(
            {
                "plan": encode(plan),
                "stills": stills.sha256,
                "preprocess": encode(self._recipe.preprocess),
                "version": _VERSION,
                "precision": self._recipe.precision,
                "device": self._device.type,
                "encoder": self._weights_sha256,
            }
        )
