"""The shape of a model, down to the last width: what a run, a pruned run and a bundle's manifest record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fer_edge.core.errors import InputError

__all__ = ["ModelConfig"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Widths and choices of the attention CNN-BiLSTM.

    The frame encoder has four convolution stages and three down-samplings; each stage is a convolution and any number
    of residual blocks (none gives the paper's plain four convolutions).

    Attributes:
        input_size: side of the square grey face crop, pixels.
        channels: output channels of the four stages.
        blocks: for every stage, the inner width of each of its residual blocks.
        convolution: ``"dense"`` 3x3 convolutions, or ``"separable"``: all but the first look at places and channels in
            turn, by a depthwise 3x3 and a pointwise 1x1 convolution, for a ninth of the weights.
        stem_kernel: kernel side of the first convolution.
        stem: ``"pooled"`` keeps the first convolution at full size and down-samples by max pooling, as every other
            stage does; ``"strided"`` lets the first convolution do the first down-sampling itself.
        token_grid: the feature map is averaged to a grid of this side; its cells are the region tokens, row by row.
        spatial_hidden: hidden width of the spatial BiLSTM, per direction; a frame's feature is twice as wide.
        attention_size: width of queries and keys in both attentions.
        temporal_hidden: hidden width of the temporal BiLSTM, per direction.
        discriminants: LDA dimensions, at most six for seven classes.
        dense_layers: layers of the DenseNet block.
        dense_growth: features that each layer of the DenseNet block adds.
        classes: number of expressions.
    """

    input_size: int = 48
    channels: tuple[int, ...] = (64, 64, 128, 256)
    blocks: tuple[tuple[int, ...], ...] = ((), (64,), (128,), (256,))
    convolution: Literal["dense", "separable"] = "dense"
    stem_kernel: int = 5
    stem: Literal["pooled", "strided"] = "strided"
    token_grid: int = 3
    spatial_hidden: int = 64
    attention_size: int = 32
    temporal_hidden: int = 64
    discriminants: int = 6
    dense_layers: int = 3
    dense_growth: int = 32
    classes: int = 7

    def __post_init__(self) -> None:
        if len(self.channels) != 4 or len(self.blocks) != 4:
            raise InputError(
                f"the frame encoder has four stages; got {len(self.channels)} channels and {len(self.blocks)} blocks"
            )
        widths = (*self.channels, *(width for stage in self.blocks for width in stage))
        sizes = (self.spatial_hidden, self.attention_size, self.temporal_hidden, self.dense_growth, self.token_grid)
        if min((*widths, *sizes)) < 1:
            raise InputError(f"every width must be at least 1; got {widths + sizes}")
        if self.input_size % 8 or self.map_size % self.token_grid:
            raise InputError(
                f"input_size must be a multiple of 8 whose eighth is a multiple of token_grid; got input_size "
                f"{self.input_size}, token_grid {self.token_grid}"
            )
        if not 1 <= self.discriminants < self.classes:
            raise InputError(
                f"LDA of {self.classes} classes has at most {self.classes - 1} discriminants; got {self.discriminants}"
            )
        if self.dense_layers < 3:
            raise InputError(f"the DenseNet block has at least three layers; got {self.dense_layers}")
        if self.temporal_hidden != self.spatial_hidden:
            raise InputError(
                "the temporal BiLSTM refines the frame features, so temporal_hidden must equal spatial_hidden; got "
                f"{self.temporal_hidden} and {self.spatial_hidden}"
            )

    @property
    def map_size(self) -> int:
        """Side of the feature map after three down-samplings."""
        return self.input_size // 8

    @property
    def tokens(self) -> int:
        """Number of region tokens."""
        return self.token_grid**2

    @property
    def feature_size(self) -> int:
        """Width of one frame's feature vector."""
        return 2 * self.spatial_hidden
