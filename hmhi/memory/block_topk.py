"""Sparse reading of fine memories, guided by a coarse one (HMMN, section 3.2).

A fine level has f x f positions in each coarse cell. They are stored cell by cell, so that what a query needs is
gathered in whole blocks.

R rows (objects), N coarse query cells, M coarse memory cells, S chosen ones, D channels of keys, C of values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED_AT_ONCE = 1 << 22  # numbers: 16 MiB of float32


def to_blocks(x: Tensor, factor: int) -> Tensor:
    """(B, C, f h, f w) to (B, h*w, f*f, C)."""
    b, c, height, width = x.shape
    x = x.view(b, c, height // factor, factor, width // factor, factor)  # (B, C, h, f, w, f)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, factor**2, c)  # (B, h*w, f*f, C)


def from_blocks(x: Tensor, factor: int, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, f*f, C) to (B, C, f h, f w)."""
    h, w = grid
    x = x.view(len(x), h, w, factor, factor, -1)  # (B, h, w, f, f, C)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, h * factor, w * factor)  # (B, C, f h, f w)


def read_blocks(query: Tensor, keys: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Softmax attention of each query block to the blocks that were chosen for it.

    Args:
        query: (R, N, f*f, D) or, the same for all rows, (1, N, f*f, D).
        keys: (R, M, f*f, D).
        values: (R, M, f*f, C).
        chosen: int64 (R, N, S) of memory cells.

    Returns:
        (R, N, f*f, C).
    """
    rows, m, block, channels = keys.shape
    n, count = chosen.shape[1:]
    index = chosen + torch.arange(rows, device=chosen.device)[:, None, None] * m  # (R, N, S)
    key_table, value_table = keys.flatten(0, 1).flatten(1), values.flatten(0, 1).flatten(1)  # (R*M, f*f*D)
    query = query * channels**-0.5
    cells = max(1, GATHERED_AT_ONCE // (count * (key_table.shape[1] + value_table.shape[1])))
    out = []
    for row in range(rows):
        for at, part in zip(
            index[row].split(cells), query[row if len(query) > 1 else 0].split(cells), strict=True
        ):
            k = F.embedding(at, key_table).view(-1, count * block, channels)  # (c, S*f*f, D)
            v = F.embedding(at, value_table).view(-1, count * block, values.shape[-1])  # (c, S*f*f, C)
            scores = part @ k.transpose(1, 2)  # (c, f*f, S*f*f)
            weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
            out.append(weights.to(v.dtype) @ v)  # (c, f*f, C)
    return torch.cat(out).view(rows, n, block, -1)
