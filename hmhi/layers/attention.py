"""Single-head attention over tokens, and its exact top-k form that never builds an N x M matrix.

B batch, N query tokens, M key tokens, C channels, K kept keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.position import rotate
from hmhi.layers.topk import topk_scores


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

    Only the kept values are gathered, and no N x M matrix is ever whole. Gradients flow through the kept scores.

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
    scores, index = topk_scores(q, k, topk)  # (B, N, K) each
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
