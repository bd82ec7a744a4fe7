"""Single-head attention over tokens, and its exact top-k form that never builds an N x M matrix.

B batch, N query tokens, M key tokens, C channels, K kept keys.
"""

from __future__ import annotations

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
            queries = rotate(queries, rotary)
        dropout = self.dropout if self.training else 0.0
        if self.topk and keys.shape[1] > self.topk:
            out = topk_attention(queries, keys, values, self.topk, dropout)
        else:
            out = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.out_proj(out)


def topk_attention(q: Tensor, k: Tensor, v: Tensor, topk: int, dropout: float = 0.0) -> Tensor:
    """Softmax attention in which each query sees only its `topk` highest-scoring keys; exact.

    Scores are made for a slice of the queries at a time, and only the kept values are gathered: peak memory
    grows with M alone, not with N x M. Gradients flow through the kept scores. Keys of equal score at the limit
    are chosen between at will.

    Args:
        q: (B, N, C) queries.
        k: (B, M, C) keys, M >= topk.
        v: (B, M, C) values.
        topk: Keys kept for each query.
        dropout: Rate on the softmax weights.

    Returns:
        (B, N, C) of v's dtype.
    """
    batch, m, channels = k.shape
    # One table for the whole batch, so that a single gather serves every clip.
    table = v.reshape(batch * m, channels)
    transposed = k.transpose(1, 2).contiguous()  # once: bfloat16 products would copy it for every slice
    first = torch.arange(batch, device=q.device)[:, None, None] * m
    rows = max(1, SCORES_AT_ONCE // (batch * m))
    out = []
    for part in q.split(rows, dim=1):
        scores = part @ transposed  # (B, n, M)
        index = best_keys(scores, topk)  # (B, n, K)
        kept = scores.gather(-1, index) * channels**-0.5
        weight = kept.softmax(dim=-1, dtype=torch.promote_types(kept.dtype, torch.float32))
        weight = F.dropout(weight, dropout, training=dropout > 0.0)
        mixed = F.embedding_bag(
            (index + first).flatten(0, 1),
            table,
            mode="sum",
            per_sample_weights=weight.flatten(0, 1).to(v.dtype),
        )  # (B * n, C)
        out.append(mixed.view(batch, -1, channels))
    return torch.cat(out, dim=1) if len(out) > 1 else out[0]


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
