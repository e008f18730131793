"""Residual blocks that add the same to every face: found, and left out.

Training can bring a block's branch to a standstill: it adds a constant. Left out, with the constant in the bias before
it, the network is shallower and computes nearly the same; in INT8 one sum less is rounded. A ranking of filters does
not see it, for the filters are the shortcut's as well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fer_edge.model.cnn import ResidualBlock
from fer_edge.model.network import AttentionCnnBiLstm

__all__ = ["BlockActivity", "block_activities", "without_blocks"]


@dataclass(frozen=True, kw_only=True)
class BlockActivity:
    """What a residual block adds to its shortcut.

    Attributes:
        stage: of the CNN.
        layer: its place among the stage's layers.
        share: how far what it adds strays from its mean, over how far the shortcut strays from its own: root mean
            squares over faces, places and channels.
        mean: float (C,), what it adds on average, by channel.
    """

    stage: int
    layer: int
    share: float
    mean: Tensor

    @property
    def name(self) -> str:
        """Its path in the encoder."""
        return f"cnn.{self.stage}.{self.layer}"


@torch.no_grad()
def block_activities(model: AttentionCnnBiLstm, faces: Tensor, *, size: int = 256) -> list[BlockActivity]:
    """What every residual block adds on some faces, first to last.

    Args:
        model: in evaluation mode.
        faces: uint8 (N, S, S).
        size: faces a batch.
    """
    encoder, moments = model.encoder, dict[tuple[int, int], list[Tensor]]()
    for part in torch.split(faces, size):
        maps = encoder.normalise(part)
        for stage, layers in enumerate(encoder.cnn.children()):
            for place, layer in enumerate(layers.children()):
                if isinstance(layer, ResidualBlock):
                    both = torch.stack((_moments(maps), _moments(layer.branch(maps))))
                    moments.setdefault((stage, place), []).append(both * len(part) / len(faces))
                maps = layer(maps)
    found = []
    for (stage, place), seen in moments.items():
        (mean, square), (added, added_square) = torch.stack(seen).sum(dim=0)
        spread = ((added_square - added.square()).mean() / (square - mean.square()).mean()).clamp(min=0).sqrt()
        found.append(BlockActivity(stage=stage, layer=place, share=float(spread), mean=added.float()))
    return found


@torch.no_grad()
def without_blocks(model: AttentionCnnBiLstm, idle: Collection[BlockActivity]) -> AttentionCnnBiLstm:
    """The network without some residual blocks; what they add on average is in the bias before them.

    Where a block adds nothing positive, and always the same, that is the same function: a ReLU follows both.

    Args:
        model: not changed.
        idle: the blocks to leave out.
    """
    gone = {(block.stage, block.layer): block.mean for block in idle}
    stages = [list(layers.children()) for layers in model.encoder.cnn.children()]
    widths = tuple(
        tuple(
            layer.width
            for place, layer in enumerate(layers)
            if isinstance(layer, ResidualBlock) and (stage, place) not in gone
        )
        for stage, layers in enumerate(stages)
    )
    config = replace(model.config, blocks=widths)
    shallower = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.cnn.")}
    shallower.load_state_dict(state, strict=False)
    for stage, (layers, target) in enumerate(zip(stages, shallower.encoder.cnn.children(), strict=True)):
        kept = target.children()
        norm: nn.Module | None = None
        for place, layer in enumerate(layers):
            if (stage, place) in gone:
                assert norm is not None  # a stage begins with a convolution
                norm.get_parameter("bias").add_(gone[stage, place])
                continue
            copy = next(kept)
            copy.load_state_dict(layer.state_dict())
            norms = [module for module in copy.modules() if isinstance(module, nn.BatchNorm2d)]
            norm = norms[-1] if norms else norm
    return shallower.eval()


def _moments(maps: Tensor) -> Tensor:
    """Mean and mean square over faces and places, by channel: float64 (2, C) of (N, C, H, W)."""
    values = maps.double()
    return torch.stack((values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))))
