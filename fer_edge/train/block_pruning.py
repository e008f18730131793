"""Block pruning: find and remove residual blocks that add nearly the same to every face.

The mean of such a block's branch moves into the bias before it, so the shallower network computes nearly the same; in
INT8 one sum less is rounded. A ranking of filters does not find such blocks, since the shortcut shares their filters.
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
    """How much a residual block's branch varies.

    Attributes:
        stage: of the CNN.
        layer: index among the stage's layers.
        share: standard deviation of the branch over that of the shortcut, root mean squares over faces, positions and
            channels.
        mean: float (C,), mean of the branch by channel.
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
    """Measure every residual block on some faces, first to last.

    Args:
        model: in evaluation mode.
        faces: uint8 (N, S, S).
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
    for (stage, place), parts in moments.items():
        (mean, square), (added, added_square) = torch.stack(parts).sum(dim=0)
        spread = ((added_square - added.square()).mean() / (square - mean.square()).mean()).clamp(min=0).sqrt()
        found.append(BlockActivity(stage=stage, layer=place, share=float(spread), mean=added.float()))
    return found


@torch.no_grad()
def without_blocks(model: AttentionCnnBiLstm, idle: Collection[BlockActivity]) -> AttentionCnnBiLstm:
    """Remove residual blocks and add the means of their branches to the bias before them.

    The function is the same where a block always adds the same values and none is positive: a ReLU follows both.

    Args:
        model: not changed.
        idle: the blocks to remove.
    """
    removed = {(block.stage, block.layer): block.mean for block in idle}
    stages = [list(layers.children()) for layers in model.encoder.cnn.children()]
    widths = tuple(
        tuple(
            layer.width
            for place, layer in enumerate(layers)
            if isinstance(layer, ResidualBlock) and (stage, place) not in removed
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
            if (stage, place) in removed:
                assert norm is not None  # a stage begins with a convolution
                norm.get_parameter("bias").add_(removed[stage, place])
                continue
            copy = next(kept)
            copy.load_state_dict(layer.state_dict())
            norms = [module for module in copy.modules() if isinstance(module, nn.BatchNorm2d)]
            norm = norms[-1] if norms else norm
    return shallower.eval()


def _moments(maps: Tensor) -> Tensor:
    """Mean and mean square over faces and positions, by channel: float64 (2, C) of (N, C, H, W)."""
    values = maps.double()
    return torch.stack((values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))))
