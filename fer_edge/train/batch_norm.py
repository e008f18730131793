"""Statistics of batch normalisations, estimated on training faces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.data import Dataset
from fer_edge.data.sampling import draw_sample
from fer_edge.model.network import AttentionCnnBiLstm

__all__ = ["refit_batch_norm", "training_faces"]

REFITTED_FACES: Final = 2048
"""Training faces that statistics are estimated on."""


def training_faces(dataset: Dataset, preprocess: PreprocessSpec) -> Tensor:
    """Draw a stratified sample of the training faces, prepared for a network: uint8 (N, S, S)."""
    size = min(REFITTED_FACES, len(dataset.split("train")))
    faces = prepare_stills(np.asarray(draw_sample(dataset, size=size, seed=0).stills.images), preprocess)
    return torch.from_numpy(np.array(faces))


@torch.no_grad()
def refit_batch_norm(model: AttentionCnnBiLstm, faces: Tensor, *, size: int = 512) -> None:
    """Set the statistics of folded batch normalisations to those of `faces`; the network's function stays.

    The weights of a bundle include their batch normalisation's scale, so its stored statistics are neutral. That is
    right in evaluation, but training would divide by the batch's deviation a second time. Afterwards both modes agree.
    Applies to the CNN and to the DenseNet block.

    Args:
        model: a network read from a bundle.
        faces: uint8 (N, S, S), a sample of the training faces.
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
