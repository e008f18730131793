"""Point-multiplication attention: a weighted mean that favours the informative parts (section 3.6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["PointMultiplicationAttention"]


class PointMultiplicationAttention(nn.Module):
    """Scaled dot product of one query with the keys of a sequence (Vaswani et al. 2017, arXiv 1706.03762).

    The softmax of the products weighs the values, and their weighted mean is the result.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, size)
        self.key = nn.Linear(width, size, bias=False)
        self.scale = size**-0.5

    def forward(self, query: Tensor, values: Tensor, blocked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend to `values`.

        Args:
            query: (N, W) what is looked for.
            values: (N, T, W) the sequence, its own keys.
            blocked: bool (N, 1, T), True where a place may not be looked at.

        Returns:
            the weighted mean (N, W) and the weights (N, T), which sum to one.
        """
        products = torch.matmul(self.query(query).unsqueeze(1), self.key(values).transpose(1, 2)).float() * self.scale
        if blocked is not None:
            products = products.masked_fill(blocked, -1e4)
        weights = torch.softmax(products, dim=2)
        mean = torch.matmul(weights.to(values.dtype), values).squeeze(1)
        return mean, weights.squeeze(1)
