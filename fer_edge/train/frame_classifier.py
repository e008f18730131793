"""Classifiers of single frames: the network at T = 1 with a linear probe, or with its own head."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.device import autocast
from fer_edge.train.recipe import Precision

__all__ = ["FrameClassifier", "FrameOutput", "inference_copy", "predicted_classes", "single_contexts"]


def single_contexts(head: SequenceHead, features: Tensor) -> Tensor:
    """Return a head's contexts of single frames: features (N, F) -> (N, F)."""
    length = torch.ones(len(features), dtype=torch.int64, device=features.device)
    context, _ = head.context(features.unsqueeze(1), length)
    return context


class FrameOutput(NamedTuple):
    """Output of a `FrameClassifier` for B faces.

    Attributes:
        logits: (B, classes).
        context: (B, F), the head's context at T = 1.
        crowd: (B, classes + 1), the logits of the probe for the crowd's votes; None without that probe.
    """

    logits: Tensor
    context: Tensor
    crowd: Tensor | None = None


class FrameClassifier(nn.Module):
    """Encoder, head context at T = 1 and classifier in one module, so that data parallelism wraps one forward.

    Attributes:
        model: the network.
        probe: linear classifier of the context; None for the network's own LDA, DenseNet block and classifier.
        crowd: a second linear classifier of the context, toward the crowd's votes; None to train toward labels alone.
    """

    def __init__(
        self,
        model: AttentionCnnBiLstm,
        probe: nn.Linear | None = None,
        *,
        dropout: float = 0.0,
        crowd: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.probe = probe
        self.dropout = nn.Dropout(dropout)
        self.crowd = crowd

    def forward(self, faces: Tensor) -> FrameOutput:
        """Classify faces uint8 (B, S, S)."""
        logits, context = self.read(self.model.encoder(faces)[0])
        return FrameOutput(logits, context, None if self.crowd is None else self.crowd(self.dropout(context)))

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classify single frames' features (N, F): logits (N, classes) and contexts (N, F)."""
        context = single_contexts(self.model.head, features)
        if self.probe is None:
            return self.model.head.classify(context), context
        return self.probe(self.dropout(context)), context

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits (N, classes) of single frames' features (N, F)."""
        return self.read(features)[0]


def inference_copy(classifier: FrameClassifier) -> FrameClassifier:
    """Copy a classifier for inference, its batch normalisations folded into the convolutions."""
    result = copy.deepcopy(classifier).eval()
    result.model.encoder = folded(result.model.encoder)
    return result


@torch.no_grad()
def predicted_classes(
    classifier: nn.Module, images: Tensor, precision: Precision, *, size: int = 512
) -> tuple[Tensor, Tensor | None]:
    """Classify prepared faces uint8 (N, S, S): int64 (N,), by the labels' probe and, where there is one, the crowd's.

    The crowd's output `not judgeable` is left out.
    """
    own, crowd = [], []
    with autocast(precision, images.device):
        for part in torch.split(images, size):
            output: FrameOutput = classifier(part)
            own.append(output.logits.argmax(dim=1))
            if output.crowd is not None:
                crowd.append(output.crowd[:, :-1].argmax(dim=1))
    return torch.cat(own), torch.cat(crowd) if crowd else None
