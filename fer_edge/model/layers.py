"""The layers of the attention CNN-BiLSTM behind its CNN: normalisation, BiLSTM, attention, LDA, DenseNet block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "BiLSTM",
    "DenseLayer",
    "DenseNetBlock",
    "LinearDiscriminants",
    "PixelNormalisation",
    "PointMultiplicationAttention",
]


class PixelNormalisation(nn.Module):
    """uint8 pixels to floats: x / 255, then global contrast normalisation of each image.

    Subtracts the image's mean and divides by its standard deviation (section 3.1 of the paper), with 1e-6 added to the
    variance so that a constant image gives zeros. Always FP32.

    Contrast normalisation does not depend on the scale of the pixels, so it skips the division and scales the epsilon:
    three graph nodes instead of ten.
    """

    def __init__(self, normalisation: Literal["gcn", "scale"]) -> None:
        super().__init__()
        self.contrast = normalisation == "gcn"

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, S, S) grey -> float32 (N, 1, S, S)."""
        pixels = frames.float().unsqueeze(1)  # TensorRT cannot reshape uint8, so the cast comes first
        return nn.functional.instance_norm(pixels, eps=1e-6 * 255.0**2) if self.contrast else pixels / 255.0


class BiLSTM(nn.Module):
    """Bidirectional LSTM (Hochreiter and Schmidhuber 1997; Schuster and Paliwal 1997) with explicit zero states.

    Explicit initial states follow the batch of the input when the module is traced. Used at both levels (section 3.5):
    over the regions of a face and over the frames of a window.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        for name, parameter in self.lstm.named_parameters():
            if "bias_ih" in name:  # open forget gates, so that early training carries information across the sequence
                nn.init.zeros_(parameter)
                nn.init.ones_(parameter.data[hidden : 2 * hidden])
            elif "bias_hh" in name:
                nn.init.zeros_(parameter)

    def forward(self, sequence: Tensor) -> Tensor:
        """(N, T, W) -> (N, T, 2 x hidden)."""
        state = sequence.new_zeros(2, sequence.shape[0], self.lstm.hidden_size)
        output: Tensor = self.lstm(sequence, (state, state))[0]
        return output


class PointMultiplicationAttention(nn.Module):
    """Scaled dot-product attention of one query over a sequence (section 3.6; arXiv 1706.03762)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, size)
        self.key = nn.Linear(width, size, bias=False)
        self.scale = size**-0.5

    def forward(self, query: Tensor, values: Tensor, blocked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend to `values`.

        Args:
            query: (N, W).
            values: (N, T, W), also the source of the keys.
            blocked: bool (N, 1, T), True at positions to mask out.

        Returns:
            the weighted mean (N, W) and the weights (N, T), which sum to one.
        """
        products = torch.matmul(self.query(query).unsqueeze(1), self.key(values).transpose(1, 2)).float() * self.scale
        if blocked is not None:
            products = products.masked_fill(blocked, -1e4)
        weights = torch.softmax(products, dim=2)
        mean = torch.matmul(weights.to(values.dtype), values).squeeze(1)
        return mean, weights.squeeze(1)


class LinearDiscriminants(nn.Module):
    """Projection on the LDA discriminants (section 3.7), fixed once fitted (`fer_edge.train.lda`).

    Buffers rather than parameters, so that no optimiser changes them. `fitted` is False until the fit.
    """

    mean: Tensor
    projection: Tensor
    fitted: Tensor

    def __init__(self, width: int, discriminants: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.eye(width, discriminants))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, context: Tensor) -> Tensor:
        """(B, W) -> (B, discriminants)."""
        return torch.matmul(context - self.mean, self.projection)


class DenseLayer(nn.Module):
    """One layer of a `DenseNetBlock`: BN, ReLU, linear."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(width, growth)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W) -> (B, growth)."""
        output: Tensor = self.linear(self.relu(self.normalise(features)))
        return output


class DenseNetBlock(nn.Module):
    """Reconstruction behind the LDA: each layer reads the concatenation of all before it (arXiv 1608.06993)."""

    def __init__(self, width: int, *, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(width + index * growth, growth) for index in range(layers))
        self.output_size = width + layers * growth

    def forward(self, features: Tensor) -> Tensor:
        """(B, W) -> (B, W + layers x growth)."""
        for layer in self.layers:
            features = torch.cat((features, layer(features)), dim=1)
        return features

    def each_layer(self) -> Iterator[DenseLayer]:
        """Iterate over the layers, first to last."""
        for layer in self.layers:
            assert isinstance(layer, DenseLayer)
            yield layer
