"""Dense reading of a memory, a few rows of the grid at a time: by likeness (HMMN, section 3.1) or distance (STMA).

R rows (objects), h w cells of a grid, N = h*w query cells, M memory cells, D channels of keys, C of values.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
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


def read_nearest(query: Tensor, keys: Tensor, values: Tensor, *, topk: int = 0) -> tuple[Tensor, Tensor]:
    """Softmax attention by squared distance over the memory, or over the cells nearest to a query (STCN; XMem).

    The score of a cell is (2 k.q - k.k) / sqrt(D), in float32 at least. No N x M matrix is ever whole.

    Args:
        query: (G, N, D); G is R, or 1 where queries and keys are the same for all rows.
        keys: (G, M, D).
        values: (R, M, C).
        topk: Memory cells that a query reads; 0, or as many as there are, reads all.

    Returns:
        (R, N, C), and (G, M): the attention that each memory cell received, summed over the queries.
    """
    device = query.device.type
    exact = (
        torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    )
    with exact:  # the device ``meta``, on which costs are counted, has no autocast
        wide = torch.promote_types(query.dtype, torch.float32)
        query, keys = query.to(wide), keys.to(wide)
        (shared, n, channels), m = query.shape, keys.shape[1]
        half_length = keys.square().sum(dim=-1)[:, None] / 2  # (G, 1, M)
        transposed = keys.transpose(1, 2)  # (G, D, M)
        at_once = max(1, SCORES_AT_ONCE // (shared * m))  # queries
        reads, received = [], keys.new_zeros(shared, m)
        for first in range(0, n, at_once):
            scores = query[:, first : first + at_once] @ transposed - half_length  # (G, n, M)
            scores = scores * (2 * channels**-0.5)
            if 0 < topk < m:
                best = scores.topk(topk, dim=-1)  # (G, n, topk)
                weights = best.values.softmax(dim=-1)
                reads.append(_sum_at(values, best.indices, weights))  # (R, n, C)
                received.scatter_add_(1, best.indices.flatten(1), weights.detach().flatten(1))
            else:
                weights = scores.softmax(dim=-1)  # (G, n, M)
                reads.append(weights.to(values.dtype) @ values)  # (R, n, C)
                received += weights.detach().sum(dim=1)
    return torch.cat(reads, dim=1), received


def _sum_at(values: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (R, n, C) of the cells at `index` (G, n, k), without gathering them."""
    rows, m, _ = values.shape
    index = index + torch.arange(rows, device=index.device)[:, None, None] * m  # (R, n, k)
    sums = F.embedding_bag(
        index.flatten(0, 1),  # (R n, k)
        values.flatten(0, 1),  # (R M, C)
        mode="sum",
        per_sample_weights=weights.to(values.dtype).expand_as(index).flatten(0, 1),  # (R n, k)
    )
    return sums.unflatten(0, (rows, -1))  # (R, n, C)
