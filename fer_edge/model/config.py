"""The shape of a model: every width, as runs and bundles record it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fer_edge.core.errors import RecipeError

__all__ = ["ModelConfig"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the attention CNN-BiLSTM.

    The frame encoder has four convolution stages and three down-samplings; each stage is a convolution and any number
    of residual blocks (none gives the paper's plain four convolutions).

    Attributes:
        input_size: side of the square grey face crop, pixels.
        channels: output channels of the four stages.
        blocks: for every stage, the inner width of each of its residual blocks.
        stem_kernel: kernel side of the first convolution.
        stem: ``"pooled"`` keeps the first convolution at full size and down-samples by max pooling, as every other
            stage does; ``"strided"`` gives the first convolution a stride of two.
        token_grid: the feature map is averaged to a grid of this side; its cells are the region tokens, row by row.
        spatial_hidden: hidden width of the spatial BiLSTM, per direction; a frame's feature is twice as wide.
        attention_size: width of queries and keys in both attentions.
        temporal_hidden: hidden width of the temporal BiLSTM, per direction.
        discriminants: LDA dimensions, at most six for seven classes.
        dense_layers: layers of the DenseNet block.
        dense_growth: features that each layer of the DenseNet block adds.
    """

    input_size: int = 48
    channels: tuple[int, ...] = (64, 64, 128, 256)
    blocks: tuple[tuple[int, ...], ...] = ((), (64,), (128,), (256,))
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
            raise RecipeError(
                f"channels, blocks: got {len(self.channels)} and {len(self.blocks)} stages, expected four"
            )
        widths = (*self.channels, *(width for stage in self.blocks for width in stage))
        sizes = (self.spatial_hidden, self.attention_size, self.temporal_hidden, self.dense_growth, self.token_grid)
        if min((*widths, *sizes)) < 1:
            raise RecipeError(f"widths: got {widths + sizes}, expected 1 or more")
        if self.input_size % 8 or self.map_size % self.token_grid:
            raise RecipeError(
                f"input_size: got {self.input_size}, expected a multiple of 8 x token_grid, {8 * self.token_grid}"
            )
        if not 1 <= self.discriminants < self.classes:
            raise RecipeError(
                f"discriminants: got {self.discriminants}, expected 1 to {self.classes - 1} for {self.classes} classes"
            )
        if self.dense_layers < 3:
            raise RecipeError(f"dense_layers: got {self.dense_layers}, expected three or more")
        if self.temporal_hidden != self.spatial_hidden:
            raise RecipeError(
                f"temporal_hidden: got {self.temporal_hidden}, expected spatial_hidden, {self.spatial_hidden}: the "
                "temporal BiLSTM refines the frame features"
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
    def crowd(self) -> ModelConfig:
        """The shape with a head `crowd`: one output and one discriminant more, for `not judgeable`."""
        return replace(self, classes=self.classes + 1, discriminants=self.discriminants + 1)

    @property
    def feature_size(self) -> int:
        """Width of one frame's feature vector."""
        return 2 * self.spatial_hidden
