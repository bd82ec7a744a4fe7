"""Between a feature map and its cells as tokens, row-major.

B batch, C channels, h w cells.
"""

from __future__ import annotations

from torch import Tensor


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h*w, C)."""
    return x.flatten(2).transpose(1, 2)  # (B, h*w, C)


def from_tokens(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, C) to (B, C, h, w)."""
    return x.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
