"""Single-head attention over tokens, and its exact top-k form that never builds an N x M matrix.

B batch, N query tokens, M key tokens, C channels, K kept keys.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.position import rotate

# Scores that exist at one time in `topk_attention`: 16 MiB of float32. Larger pieces are no faster, and from
# 32 MiB on glibc asks the system for fresh pages each time, which doubles the time of the product.
SCORES_AT_ONCE = 1 << 22
BLOCK = 16  # keys whose maximum `best_keys` looks at first


class Attention(nn.Module):
    """Attention with one head, whose keys and values can be projected once and kept.

    Args:
        channels: Width C of queries, keys, values and output.
        dropout: Rate on the attention weights, training only.
        topk: Keys that each query keeps; 0 attends to all.
    """

    def __init__(self, channels: int, *, dropout: float = 0.0, topk: int = 0) -> None:
        super().__init__()
        self.dropout = dropout
        self.topk = topk
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def keys_values(self, k: Tensor, v: Tensor, rotary: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Project (and rotate) tokens to keys and values, the form that a memory bank stores.

        Args:
            k: (B, M, C) tokens that become keys.
            v: (B, M, C) tokens that become values.
            rotary: Table of `hmhi.layers.position.rotary_table` for the keys' grid, or None.

        Returns:
            Keys and values, (B, M, C) each.
        """
        keys = self.k_proj(k)
        return (keys if rotary is None else rotate(keys, rotary)), self.v_proj(v)

    def forward(self, q: Tensor, keys: Tensor, values: Tensor, rotary: Tensor | None = None) -> Tensor:
        """Attend from tokens to projected keys and values.

        Args:
            q: (B, N, C) tokens, not yet projected.
            keys: (B, M, C) from `keys_values`.
            values: (B, M, C) from `keys_values`.
            rotary: Table for the queries' grid, or None.

        Returns:
            (B, N, C).
        """
        queries = self.q_proj(q)
        if rotary is not None:
            queries = rotate(queries, rotary)  # (B, N, C)
        dropout = self.dropout if self.training else 0.0
        if self.topk and keys.shape[1] > self.topk:
            out = topk_attention(queries, keys, values, self.topk, dropout)
        else:
            out = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.out_proj(out)


def topk_attention(q: Tensor, k: Tensor, v: Tensor, topk: int, dropout: float = 0.0) -> Tensor:
    """Softmax attention in which each query sees only its `topk` highest-scoring keys; exact.

    Scores are made for a slice of the queries at a time, and only the kept values are gathered: peak memory
    grows with M alone, not with N x M. Gradients flow through the kept scores. Which of several keys of equal
    score at the limit is kept is not defined. `torch.compile` and `torch.export` see the search as one operator.

    Args:
        q: (B, N, C) queries.
        k: (B, M, C) keys, M >= topk.
        v: (B, M, C) values.
        topk: Keys kept for each query.
        dropout: Rate on the softmax weights.

    Returns:
        (B, N, C) of v's dtype.
    """
    batch, m, _ = k.shape
    scores, index = _topk_scores(q, k, topk)  # (B, N, K) each
    weight = F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0.0)
    # One table for the whole batch, so that a single gather serves every clip.
    index = index + torch.arange(batch, device=q.device)[:, None, None] * m  # (B, N, K)
    mixed = F.embedding_bag(
        index.flatten(0, 1),  # (B * N, K)
        v.reshape(batch * m, -1),  # (B * M, C)
        mode="sum",
        per_sample_weights=weight.flatten(0, 1).to(v.dtype),  # (B * N, K)
    )  # (B * N, C)
    return mixed.unflatten(0, (batch, -1))  # (B, N, C)


@torch.library.custom_op("hmhi::topk_scores", mutates_args=())
def _topk_scores(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Scaled scores of each query's best keys, float32 at least, and which keys they are, (B, N, K) each."""
    batch, m, channels = k.shape
    transposed = k.transpose(
        1, 2
    ).contiguous()  # (B, C, M), once: bfloat16 products would copy it for every slice
    shrink, scale = _scales(channels)
    scores, indices = [], []
    for part in q.split(max(1, SCORES_AT_ONCE // (batch * m)), dim=1):
        products = (part * shrink) @ transposed  # (B, n, M)
        index = best_keys(products, topk)  # (B, n, K)
        best = products.gather(-1, index)  # (B, n, K)
        scores.append(best.to(torch.promote_types(best.dtype, torch.float32)) * scale)
        indices.append(index)
    return torch.cat(scores, dim=1), torch.cat(indices, dim=1)


@_topk_scores.register_fake
def _(q: Tensor, k: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    kept = (*q.shape[:2], topk)
    scores = q.new_empty(kept, dtype=torch.promote_types(q.dtype, torch.float32))
    return scores, q.new_empty(kept, dtype=torch.int64)


@torch.library.custom_op("hmhi::topk_scores_backward", mutates_args=())
def _topk_scores_backward(grad: Tensor, q: Tensor, k: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by q and k, from that by the scores (B, N, K); for a slice of the queries at a time."""
    batch, m, channels = k.shape
    queries, keys, grad = q.to(grad.dtype), k.to(grad.dtype), grad * channels**-0.5
    grad_k, grad_q = torch.zeros_like(keys), []
    rows = max(1, SCORES_AT_ONCE // (batch * m))
    for part, at, query in zip(
        grad.split(rows, dim=1), index.split(rows, dim=1), queries.split(rows, dim=1), strict=True
    ):
        dense = part.new_zeros(*part.shape[:2], m).scatter_(-1, at, part)  # (B, n, M)
        grad_q.append(dense @ keys)  # (B, n, C)
        grad_k.baddbmm_(dense.transpose(1, 2), query)  # (B, M, n) @ (B, n, C)
    return torch.cat(grad_q, dim=1).to(q.dtype), grad_k.to(k.dtype)


@_topk_scores_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


def _save_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, _ = inputs
    ctx.save_for_backward(q, k, output[1])


def _gradient(ctx: Any, grad: Tensor, _: object) -> tuple[Tensor | None, ...]:
    return *_topk_scores_backward(grad, *ctx.saved_tensors), None


_topk_scores.register_autograd(_gradient, setup_context=_save_for_gradient)


def _scales(channels: int) -> tuple[float, float]:
    """Two factors of C^-0.5: a power of two for the queries, and what is left for the scores.

    Half precision holds no product of queries and keys of length 260. Scaling the query first avoids that, and by
    a power of two it rounds nothing.
    """
    shrink = 2.0 ** -math.ceil(math.log2(channels) / 2)
    return shrink, channels**-0.5 / shrink


@torch.no_grad()
def best_keys(scores: Tensor, topk: int) -> Tensor:
    """Indices of each row's `topk` largest scores, in any order; what `Tensor.topk` gives in a third of the time.

    No more than `topk` blocks of keys can hold one of the best, and those are the blocks with the largest
    maxima: all others are left out before the search. A block's keys lie M / `BLOCK` apart, so that its maximum
    is one vector instruction.

    Args:
        scores: (..., M).
        topk: At most M.

    Returns:
        int64 (..., K).
    """
    m = scores.shape[-1]
    blocks = m // BLOCK
    if m % BLOCK or blocks <= topk:
        return scores.topk(topk, dim=-1, sorted=False).indices
    maxima = scores.unflatten(-1, (BLOCK, blocks)).amax(dim=-2)  # (..., M / BLOCK)
    block = maxima.topk(topk, dim=-1, sorted=False).indices  # (..., K)
    member = torch.arange(0, m, blocks, device=scores.device)
    candidates = (block.unsqueeze(-1) + member).flatten(-2)  # (..., K * BLOCK)
    best = scores.gather(-1, candidates).topk(topk, dim=-1, sorted=False).indices
    return candidates.gather(-1, best)
