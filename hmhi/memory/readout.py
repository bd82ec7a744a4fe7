"""Attention from a frame's feature to a memory bank (paper section 3.2, Eq. 5-7).

B batch, C channels, h w cells of a stage, N = h*w query tokens, M key tokens.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from hmhi.layers.attention import Attention
from hmhi.layers.blocks import FeedForward
from hmhi.layers.position import rotary_table, sine_position

KeyPosition = Literal["rotary", "sine", "none"]


class MemoryReadout(nn.Module):
    """One transformer layer: self-attention, attention to the memory, feed-forward, final norm.

    Note:
        Beyond Eq. 5-7, and as the official weights need: a tenth of the sine encoding is added to the input,
        self-attention is rotary, and every sub-layer has its own norm and dropout (docs/PAPER_MAP.md).

    Args:
        channels: C.
        ffn_channels: Hidden width of the feed-forward layer.
        dropout: Rate, training only.
        self_position: Add the sine encoding to self-attention's queries and keys.
        key_position: How memory keys know their place: ``rotary`` (query and key turned), ``sine`` (added to
            the key before its projection), or not at all.
        topk: Memory keys that each query keeps; 0 attends to all.
    """

    def __init__(
        self,
        channels: int,
        *,
        ffn_channels: int = 2048,
        dropout: float = 0.1,
        self_position: bool = False,
        key_position: KeyPosition = "rotary",
        topk: int = 0,
    ) -> None:
        super().__init__()
        self.self_position = self_position
        self.key_position = key_position
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.memory_attention = Attention(channels, dropout=dropout, topk=topk)
        self.norm3 = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, ffn_channels, dropout)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Project one frame's memory tokens once, to be attended to many times.

        Args:
            tokens: (B, h * w, C).
            grid: (h, w) of the tokens.

        Returns:
            Keys and values, (B, h * w, C) each.
        """
        channels = tokens.shape[-1]
        if self.key_position == "rotary":
            table = rotary_table(*grid, channels, tokens.device)
            return self.memory_attention.keys_values(tokens, tokens, table)
        if self.key_position == "sine":
            position = sine_position(*grid, channels, tokens.device)
            return self.memory_attention.keys_values(tokens + position, tokens)
        return self.memory_attention.keys_values(tokens, tokens)

    def forward(self, feature: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Refine a feature with what the memory holds.

        Args:
            feature: (B, C, h, w).
            keys: (B, M, C) from `keys_values`, frames joined.
            values: (B, M, C).

        Returns:
            (B, C, h, w).
        """
        channels, h, w = feature.shape[1:]
        position = sine_position(h, w, channels, feature.device)
        rotary = rotary_table(h, w, channels, feature.device)

        x = feature.flatten(2).transpose(1, 2) + 0.1 * position  # (B, N, C)
        y = self.norm1(x)
        qk = y + position if self.self_position else y  # (B, N, C)
        own = self.self_attention.keys_values(qk, y, rotary)  # (B, N, C) each
        x = x + self.dropout(self.self_attention(qk, *own, rotary))

        query_rotary = rotary if self.key_position == "rotary" else None
        x = x + self.dropout(self.memory_attention(self.norm2(x), keys, values, query_rotary))
        x = x + self.dropout(self.ffn(self.norm3(x)))
        return self.norm(x).transpose(1, 2).unflatten(2, (h, w))  # (B, C, h, w)
