"""Frame encoder and sequence head: the attention CNN-BiLSTM, with attention over regions and over frames.

frames -> CNN -> region tokens -> BiLSTM -> attention -> one feature a frame
features of a window -> BiLSTM -> attention -> LDA -> DenseNet block -> fully connected (softmax follows outside)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fer_edge.model.cnn import FrameCNN
from fer_edge.model.config import ModelConfig
from fer_edge.model.layers import (
    BiLSTM,
    DenseNetBlock,
    LinearDiscriminants,
    PixelNormalisation,
    PointMultiplicationAttention,
)

__all__ = ["AttentionCnnBiLstm", "FrameEncoder", "SequenceHead"]


class FrameEncoder(nn.Module):
    """One face crop to one feature vector: CNN, BiLSTM over region tokens, spatial attention."""

    def __init__(self, config: ModelConfig, normalisation: Literal["gcn", "scale"]) -> None:
        super().__init__()
        width = config.feature_size
        self.normalise = PixelNormalisation(normalisation)
        self.cnn = FrameCNN(config)
        self.regions = nn.AvgPool2d(config.map_size // config.token_grid)
        self.bilstm = BiLSTM(config.channels[-1], config.spatial_hidden)
        self.shortcut = nn.Linear(config.channels[-1], width)
        self.attention = PointMultiplicationAttention(width, config.attention_size)
        self.output = nn.BatchNorm1d(width)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, S, S) grey -> features (N, F) and attention weights over the region tokens (N, tokens)."""
        features: tuple[Tensor, Tensor] = self.read(self.cnn(self.normalise(frames)))
        return features

    def read(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The CNN's feature map (N, C, S/8, S/8) -> features (N, F) and attention weights (N, tokens)."""
        tokens = self.regions(maps).flatten(2).transpose(1, 2)
        regions = self.bilstm(tokens) + self.shortcut(tokens)
        feature, attention = self.attention(regions.mean(dim=1), regions)
        return self.output(feature), attention


class SequenceHead(nn.Module):
    """The features of a window to the logits of its newest frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.feature_size
        self.bilstm = BiLSTM(width, config.temporal_hidden)
        self.attention = PointMultiplicationAttention(width, config.attention_size)
        self.lda = LinearDiscriminants(width, config.discriminants)
        self.reconstruction = DenseNetBlock(
            config.discriminants, layers=config.dense_layers, growth=config.dense_growth
        )
        self.classifier = nn.Linear(self.reconstruction.output_size, config.classes)

    def context(self, features: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the context of a window, before LDA.

        Args:
            features: (B, T, F), oldest first; a window that is not full repeats its oldest feature in front.
            length: int64 (B,), the newest `length` frames are real, 1 <= length <= T.

        Returns:
            the attended context (B, F) and the attention weights over frames (B, T), zero on the repeated ones.
        """
        refined = features + self.bilstm(features)
        age = torch.arange(features.shape[1], 0, -1, device=features.device)
        blocked = age > length.reshape(-1, 1, 1)
        return self.attention(refined[:, -1], refined, blocked)  # type: ignore[no-any-return]

    def classify(self, context: Tensor) -> Tensor:
        """(B, F) -> logits (B, classes)."""
        logits: Tensor = self.classifier(self.reconstruction(self.lda(context)))
        return logits

    def forward(self, features: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), length int64 (B,) -> logits (B, classes) and attention over frames (B, T)."""
        context, attention = self.context(features, length)
        return self.classify(context), attention


class AttentionCnnBiLstm(nn.Module):
    """Frame encoder and sequence head together.

    Attributes:
        encoder: frames to features.
        head: the head `fer2013`: features to the logits of the labels.
        crowd: the head `crowd`, of the shape `ModelConfig.crowd`; None where there is none.
    """

    crowd: SequenceHead | None

    def __init__(self, config: ModelConfig, *, normalisation: Literal["gcn", "scale"] = "gcn") -> None:
        super().__init__()
        self.config = config
        self.normalisation = normalisation
        self.encoder = FrameEncoder(config, normalisation)
        self.head = SequenceHead(config)
        self.crowd = None

    def forward(self, frames: Tensor, length: Tensor) -> Tensor:
        """A batch of clips: frames uint8 (B, T, S, S), length int64 (B,) -> logits (B, classes)."""
        batch, steps = frames.shape[:2]
        features, _ = self.encoder(frames.flatten(0, 1))
        logits: Tensor = self.head(features.reshape(batch, steps, -1), length)[0]
        return logits
