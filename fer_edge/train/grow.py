"""A trained network as the beginning of a deeper or wider one: the same function first, then more to learn with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.data import Dataset
from fer_edge.data.sample import draw_sample
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm

__all__ = ["grown", "grows_from", "refit_batch_norm", "refit_folded", "training_faces"]

REFITTED_FACES: Final = 2048
"""Training faces that a network is measured on: the batch normalisations of a bundle's are fitted to them."""


def grows_from(config: ModelConfig, smaller: ModelConfig) -> bool:
    """Whether `config` is `smaller` with further residual blocks or a wider CNN, or with neither."""
    stages = zip(config.blocks, smaller.blocks, strict=True)
    return (
        replace(config, channels=smaller.channels, blocks=smaller.blocks) == smaller
        and all(map(int.__ge__, config.channels, smaller.channels))
        and all(len(large) >= len(small) and all(map(int.__ge__, large, small)) for large, small in stages)
    )


@torch.no_grad()
def grown(model: AttentionCnnBiLstm, config: ModelConfig) -> AttentionCnnBiLstm:
    """The same function in a network with further residual blocks or a wider CNN.

    As in Net2Net (Chen et al. 2016, arXiv 1511.05641). Behind a ReLU, a residual block whose last batch normalisation
    scales by zero passes its input on. A new filter begins as in a fresh network, and what was there before weighs it
    by zero until training finds a use for it: unlike a filter that was copied it has no twin to tell itself from.

    Args:
        model: the trained network.
        config: a shape that `grows_from` the network's own.
    """
    if config == model.config:
        return model
    larger = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    state = larger.state_dict()
    for name, value in model.state_dict().items():
        state[name] = _padded(value, state[name])
    larger.load_state_dict(state)
    return larger


def _padded(value: Tensor, fresh: Tensor) -> Tensor:
    """A tensor in the place of a larger one: the rows that it has weigh inputs that it has not by zero."""
    if value.shape == fresh.shape:
        return value
    padded = fresh.clone()
    padded[: len(value)] = 0
    padded[tuple(map(slice, value.shape))] = value
    return padded


def refit_folded(model: AttentionCnnBiLstm, dataset: Dataset, preprocess: PreprocessSpec) -> None:
    """`refit_batch_norm` on `training_faces`."""
    refit_batch_norm(model, training_faces(dataset, preprocess))


def training_faces(dataset: Dataset, preprocess: PreprocessSpec) -> Tensor:
    """Some training faces, of each class its share, prepared as a network sees them: uint8 (N, S, S)."""
    size = min(REFITTED_FACES, len(dataset.split("train")))
    faces = prepare_stills(np.asarray(draw_sample(dataset, size=size, seed=0).stills.images), preprocess)
    return torch.from_numpy(np.array(faces))


@torch.no_grad()
def refit_batch_norm(model: AttentionCnnBiLstm, faces: Tensor, *, size: int = 512) -> None:
    """Give folded batch normalisations the statistics of `faces`, leaving the network's function alone.

    A bundle's weights hold their batch normalisation's scale, so that its own statistics are those of numbers that need
    no scaling: true in evaluation, but training would divide by the batch's deviation a second time. Afterwards both
    modes compute the same. Those of the CNN are meant, and those of the DenseNet block.

    Args:
        model: a network read from a bundle.
        faces: uint8 (N, S, S), a sample of the training faces.
        size: faces a batch.
    """
    norms: list[nn.BatchNorm1d | nn.BatchNorm2d] = [*_behind_convolutions(model.encoder.cnn)]
    norms += [layer.normalise for layer in model.head.reconstruction.each_layer()]
    sums = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64, device=faces.device) for norm in norms}
    counts = dict.fromkeys(sums, 0)

    def listen(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        values = inputs[0].movedim(1, -1).flatten(0, -2).double()
        sums[norm] += torch.stack((values.sum(dim=0), values.square().sum(dim=0)))
        counts[norm] += len(values)

    hooks = [norm.register_forward_pre_hook(listen) for norm in norms]
    model.eval()
    for part in torch.split(faces, size):
        model(part.unsqueeze(1), torch.ones(len(part), dtype=torch.int64, device=part.device))
    for hook in hooks:
        hook.remove()
    for norm, (total, squares) in sums.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = total / counts[norm]
        variance = (squares / counts[norm] - mean.square()).clamp(min=0)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_((scale * (mean - norm.running_mean)).to(norm.bias))
        norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _behind_convolutions(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    previous = None
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            yield part
        previous = part
