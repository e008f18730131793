"""What a run's record says of its final model: accuracy on the split to choose on, temperature, threshold, clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.metrics import accuracy_report, fit_temperature, softmax
from fer_edge.data import StillSet
from fer_edge.data.clips import ClipPlan
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.feature_cache import FrameFeatures, encode_plan
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sequence_stage import averaged_predictions, window_logits

__all__ = ["clip_figures", "final_figures"]

UNKNOWN_SHARE: Final = 0.05
"""Share of the ``choose`` split's faces that fall below the unknown threshold."""


def final_figures(
    run: TrainRun, model: AttentionCnnBiLstm, stills: StillSet, choose: DeviceFaces, leaked: Tensor
) -> dict[str, Any]:
    """What a run's record says of a model: accuracy on the ``choose`` split, temperature, unknown threshold.

    The temperature minimises the likelihood loss on the rows that do not also stand in the training split (Guo et al.
    2017, arXiv 1706.04599); below the unknown threshold lie the twentieth of the faces that are least certain.
    """
    kept, window = ~leaked, run.recipe.sequence.window
    features = _still_features(model, choose)
    logits = window_logits(model, features.unsqueeze(1))
    labels = choose.labels.cpu().numpy()
    temperature = fit_temperature(logits[kept].cpu().numpy(), labels[kept.cpu().numpy()])
    probabilities = softmax(logits.cpu().numpy(), temperature=temperature)
    accuracy = accuracy_report(
        probabilities,
        labels,
        dataset=run.record["data"]["dataset"],
        split=stills.name,
        leaked=leaked.cpu().numpy(),
        classes=run.labels,
    )
    repeated = window_logits(model, features.unsqueeze(1).expand(-1, window, -1))
    return {
        "choose": accuracy.to_json(),
        "temperature": temperature,
        "unknown_threshold": float(np.quantile(probabilities[kept.cpu().numpy()].max(axis=1), UNKNOWN_SHARE)),
        "top1_by_window": {
            "still_1": _top1(logits, choose, kept),
            f"still_{window}": _top1(repeated, choose, kept),
        },
    }


def clip_figures(
    run: TrainRun,
    model: AttentionCnnBiLstm,
    stills: StillSet,
    choose: DeviceFaces,
    leaked: Tensor,
    report: Reporter,
) -> dict[str, float]:
    """Top-1 on clips made of the ``choose`` split: of the newest frame, of the window, of the frames averaged."""
    kept, window = ~leaked, run.recipe.sequence.window
    faces = FrameFeatures(model, run.recipe, choose.images.device)
    clips = encode_plan(faces, stills, _judged_clips(run.recipe), report).to(choose.images.device)
    averaged = averaged_predictions(model, clips)
    return {
        "clip_1": _top1(window_logits(model, clips[:, -1:]), choose, kept),
        f"clip_{window}": _top1(window_logits(model, clips), choose, kept),
        f"clip_averaged_{window}": float((averaged == choose.labels)[kept].float().mean()),
    }


def _top1(logits: Tensor, choose: DeviceFaces, kept: Tensor) -> float:
    return float((logits.argmax(dim=1) == choose.labels)[kept].float().mean())


@torch.no_grad()
def _still_features(model: AttentionCnnBiLstm, faces: DeviceFaces, *, size: int = 512) -> Tensor:
    """Features of every face as it is, in FP32: float32 (N, F)."""
    model.eval()
    return torch.cat([model.encoder(part)[0] for part in torch.split(faces.images, size)])


def _judged_clips(recipe: TrainRecipe) -> ClipPlan:
    """Clips of one window and one expression under what the head is trained on."""
    plan = recipe.sequence.clip_plan(seed=recipe.seed)
    return replace(plan, frames=recipe.sequence.window, changing=0.0, mirrored=0.0)
