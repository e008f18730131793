"""The networks of the study's systems, composed of the deployed network's layers."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from fer_edge.model.cnn import FrameCNN
from fer_edge.model.config import ModelConfig
from fer_edge.model.layers import DenseNetBlock, LinearDiscriminants, PixelNormalisation, PointMultiplicationAttention
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.paper.systems import System

__all__ = ["Proposed", "SystemNetwork", "Tail", "count_macs", "system_config"]


def system_config(system: System, base: ModelConfig) -> ModelConfig:
    """Return the recipe's network shape with the changes of a system."""
    hidden = system.hidden or base.spatial_hidden
    config = dataclasses.replace(
        base,
        input_size=system.input_size or base.input_size,
        token_grid=system.token_grid or base.token_grid,
        spatial_hidden=hidden,
        temporal_hidden=hidden,
    )
    if system.features == "patches":  # the width of a token is the number of pixels of a region
        return dataclasses.replace(
            config, channels=(*config.channels[:3], (config.input_size // config.token_grid) ** 2)
        )
    return config


class SystemNetwork(nn.Module):
    """A system: faces to contexts, and contexts to logits.

    Attributes:
        trunk: uint8 (N, S, S) -> context (N, W).
        temporary: the classifier of the first stage, and of systems without a second.
        tail: LDA, DenseNet block, classifier; None where the system has neither of the first two.
    """

    def __init__(self, system: System, base: ModelConfig, *, dropout: float) -> None:
        super().__init__()
        config = system_config(system, base)
        plain = system.attention == "none" and not system.two_stages
        self.trunk: nn.Module = (
            _Baseline(system, config) if plain or system.attention == "tokens" else Proposed(system, config)
        )
        width = config.feature_size
        self.dropout = nn.Dropout(dropout)
        self.temporary = nn.Linear(width, config.classes)
        self.tail = Tail(system, config) if system.two_stages else None

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Run the first stage: uint8 (N, S, S) -> logits (N, classes) and context (N, W)."""
        context = self.trunk(faces)
        return self.temporary(self.dropout(context)), context

    def classify(self, context: Tensor) -> Tensor:
        """Classify contexts (N, W) with the finished system: logits (N, classes)."""
        logits: Tensor = self.temporary(context) if self.tail is None else self.tail(context)
        return logits


class Tail(nn.Module):
    """The layers after the context: LDA and DenseNet block, or one of them, and a linear classifier."""

    def __init__(self, system: System, config: ModelConfig) -> None:
        super().__init__()
        width = config.discriminants if system.reduction else config.feature_size
        self.lda = LinearDiscriminants(config.feature_size, config.discriminants) if system.reduction else None
        self.reconstruction = (
            DenseNetBlock(width, layers=config.dense_layers, growth=config.dense_growth)
            if system.reconstruction
            else None
        )
        inputs = width if self.reconstruction is None else self.reconstruction.output_size
        self.classifier = nn.Linear(inputs, config.classes)

    def forward(self, context: Tensor) -> Tensor:
        """(N, W) -> logits (N, classes)."""
        reduced = context if self.lda is None else self.lda(context)
        logits: Tensor = self.classifier(reduced if self.reconstruction is None else self.reconstruction(reduced))
        return logits


class Proposed(nn.Module):
    """The deployed network up to its context, for a window of one frame, with some layers replaced."""

    def __init__(self, system: System, config: ModelConfig) -> None:
        super().__init__()
        model = AttentionCnnBiLstm(config, normalisation=system.normalisation)
        width = config.feature_size
        if system.features == "patches":
            model.encoder.add_module("cnn", _RawRegions(config))
            model.encoder.add_module("regions", nn.Identity())
        if system.attention == "none":
            model.encoder.add_module("attention", _PlainMean())
        if system.recurrence == "lstm":
            model.encoder.add_module("bilstm", _Recurrence(config.channels[-1], width, bidirectional=False))
        elif system.layers > 1:
            deep = _Recurrence(config.channels[-1], config.spatial_hidden, bidirectional=True, layers=system.layers)
            model.encoder.add_module("bilstm", deep)
        self.encoder = model.encoder
        self.bilstm = model.head.bilstm

    def forward(self, faces: Tensor) -> Tensor:
        """uint8 (N, S, S) -> (N, W)."""
        feature = self.encoder(faces)[0]
        # The deployed head's context of one frame: attention over one frame is that frame.
        context: Tensor = feature + self.bilstm(feature.unsqueeze(1)).squeeze(1)
        return context


class _Baseline(nn.Module):
    """CNN, tokens, a recurrence whose last states are the context; the attention CNN weights the tokens first."""

    def __init__(self, system: System, config: ModelConfig) -> None:
        super().__init__()
        channels, width = config.channels[-1], config.feature_size
        self.normalise = PixelNormalisation(system.normalisation)
        self.cnn = FrameCNN(config)
        if system.features == "separable":
            _separate(self.cnn)
        self.regions = nn.AvgPool2d(config.map_size // config.token_grid)
        self.attention = (
            PointMultiplicationAttention(channels, config.attention_size) if system.attention == "tokens" else None
        )
        self.recurrence: _Recurrence | None = None
        self.project: nn.Linear | None = None
        if system.recurrence == "none":
            self.project = nn.Linear(channels, width)
        else:
            bidirectional = system.recurrence == "bilstm"
            hidden = config.spatial_hidden if bidirectional else width
            self.recurrence = _Recurrence(channels, hidden, bidirectional=bidirectional, layers=system.layers)

    def forward(self, faces: Tensor) -> Tensor:
        """uint8 (N, S, S) -> (N, W)."""
        tokens = self.regions(self.cnn(self.normalise(faces))).flatten(2).transpose(1, 2)
        if self.attention is not None:
            weights = self.attention(tokens.mean(dim=1), tokens)[1]
            tokens = tokens * (weights * tokens.shape[1]).to(tokens.dtype).unsqueeze(2)
        if self.recurrence is None:
            assert self.project is not None
            projected: Tensor = torch.relu(self.project(tokens.mean(dim=1)))
            return projected
        return self.recurrence.last(tokens)


class _Recurrence(nn.Module):
    def __init__(self, inputs: int, hidden: int, *, bidirectional: bool, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, sequence: Tensor) -> Tensor:
        """(N, T, W) -> (N, T, directions x hidden)."""
        output: Tensor = self.lstm(sequence)[0]
        return output

    def last(self, sequence: Tensor) -> Tensor:
        """Return the final state of each direction of the last layer: (N, T, W) -> (N, directions x hidden)."""
        states: Tensor = self.lstm(sequence)[1][0]
        directions = 2 if self.lstm.bidirectional else 1
        return torch.cat(tuple(states[-directions:]), dim=1)


class _PlainMean(nn.Module):
    def forward(self, query: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Weight every token alike, in place of the attention."""
        return values.mean(dim=1), values.new_full(values.shape[:2], 1 / values.shape[1])


class _RawRegions(nn.Module):
    """The pixels of each region of the grid, as its channels: float (N, 1, S, S) -> (N, pixels, grid, grid)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(config.input_size // config.token_grid)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 1, S, S) -> (N, pixels, grid, grid)."""
        regions: Tensor = self.unshuffle(pixels)
        return regions


def _separate(cnn: FrameCNN) -> None:
    """Replace every convolution but the first by a depthwise and a pointwise one (Howard et al. 2017, 1704.04861)."""
    for stage in list(cnn.children())[1:]:
        assert isinstance(stage, nn.Sequential)
        dense = stage[0]
        assert isinstance(dense, nn.Conv2d)
        inputs, outputs = dense.in_channels, dense.out_channels
        stage[0] = nn.Sequential(
            nn.Conv2d(inputs, inputs, dense.kernel_size, dense.stride, dense.padding, groups=inputs, bias=False),  # type: ignore[arg-type]
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        )


@torch.no_grad()
def count_macs(network: SystemNetwork, size: int) -> int:
    """Count the multiply-accumulates of one face by a forward pass: convolutions, linear layers, recurrences, LDA."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            assert isinstance(output, Tensor)
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += inputs[0][0].numel() // module.in_features * module.weight.numel()
        elif isinstance(module, nn.LSTM):
            matrices = sum(weight.numel() for name, weight in module.named_parameters() if "weight" in name)
            total += inputs[0].shape[1] * matrices
        elif isinstance(module, LinearDiscriminants):
            total += module.projection.numel()

    was_training = network.training
    network.eval()
    handles = [module.register_forward_hook(count) for module in network.modules()]
    faces = torch.zeros((1, size, size), dtype=torch.uint8, device=next(network.parameters()).device)
    network.classify(network.trunk(faces))
    for handle in handles:
        handle.remove()
    network.train(was_training)
    return total
