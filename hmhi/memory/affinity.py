"""Dense reading of a memory, a few rows of the grid at a time (HMMN, section 3.1).

R rows (objects), h w cells of a grid, N = h*w query cells, M memory cells, D channels of keys, C of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES_AT_ONCE = 1 << 22  # 16 MiB of float32
Bias = tuple[Tensor, Tensor]
"""What is added to the scores: by row of the query, (R, h, M), and by its column, (R, w, M)."""


def read_memory(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    grid: tuple[int, int],
    *,
    bias: Bias | None = None,
    guides: Tensor | None = None,
    best: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention over the memory, and for each query the memory cells that it attends to most.

    No N x M matrix is ever whole: peak memory grows with M, not with N x M.

    Args:
        query: (R, N, D) or, the same for all rows, (1, N, D).
        keys: (R, M, D).
        values: (R, M, C).
        grid: (h, w) of the queries.
        bias: Added to the scaled scores.
        guides: (G,) int64: the memory cells among which the best are sought; None for all.
        best: How many; 0 for none.

    Returns:
        (R, N, C), and int64 (R, N, best): indices into `guides`, the best first; None where `best` is 0.
    """
    (h, w), m = grid, keys.shape[1]
    together = max(1, SCORES_AT_ONCE // (h * w * m))  # objects
    reads, chosen = [], []
    for first in range(0, len(keys), together):
        part = slice(first, first + together)
        own_query = query if len(query) == 1 else query[part]
        own_bias = None if bias is None else (bias[0][part], bias[1][part])
        read, index = _read_rows(own_query, keys[part], values[part], grid, own_bias, guides, best)
        reads.append(read)
        chosen.append(index)
    return torch.cat(reads), torch.cat(chosen) if best else None


def _read_rows(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    grid: tuple[int, int],
    bias: Bias | None,
    guides: Tensor | None,
    best: int,
) -> tuple[Tensor, Tensor]:
    """`read_memory` of few objects."""
    (h, w), (rows, m, channels) = grid, keys.shape
    query = query * channels**-0.5  # before the product, which half precision could not hold
    transposed = keys.transpose(1, 2)  # (R, D, M)
    lines = max(1, SCORES_AT_ONCE // (rows * w * m))  # rows of the grid
    reads, chosen = [], []
    for top in range(0, h, lines):
        scores = query[:, top * w : (top + lines) * w] @ transposed  # (R, n, M)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if bias is not None:
            by_row, by_column = bias[0][:, top : top + lines, None], bias[1][:, None]
            scores = (scores.unflatten(1, (-1, w)) + by_row + by_column).flatten(1, 2)  # (R, n, M)
        weights = scores.softmax(dim=-1)  # (R, n, M)
        reads.append(weights.to(values.dtype) @ values)  # (R, n, C)
        guide = weights.detach() if guides is None else weights.detach()[..., guides]  # (R, n, G)
        chosen.append(guide.topk(best, dim=-1).indices)  # (R, n, best)
    return torch.cat(reads, dim=1), torch.cat(chosen, dim=1)
