"""Batch normalisations folded into the convolutions before them, as every exporter of a graph does."""

from __future__ import annotations

import copy

from torch import nn

from fer_edge.model.network import FrameEncoder

__all__ = ["fold_batch_norm"]


def fold_batch_norm(encoder: FrameEncoder) -> FrameEncoder:
    """A copy whose convolutions hold the batch normalisation behind them; the same function, in evaluation mode."""
    folded = copy.deepcopy(encoder).eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, normalisation = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    module[place] = nn.utils.fusion.fuse_conv_bn_eval(convolution, normalisation)
                    module[place + 1] = nn.Identity()
    return folded
