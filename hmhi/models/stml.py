"""Spatial-temporal multi-level association (STMA, section 3.2): ViT blocks whose attention has three streams.

Objects see objects (Eq. 2); a reference frame sees itself and the objects (Eq. 3); the test frame sees itself and the
references (Eq. 4). So objects and references do not depend on the test frame, and what it reads of them can be kept.

B videos, K objects, m reference frames, N = h*w tokens of a frame, C channels, d width of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import DropPath

KeysValues = tuple[Tensor, Tensor]
"""(B, heads, n, d) each."""


@dataclass(frozen=True)
class Context:
    """What the test frame sees beside itself, in every block."""

    keys_values: tuple[KeysValues, ...]
    """Of the references, (B, heads, m * N, d); of the objects where there is no reference."""
    present: Tensor | None = None
    """(B, n) bool: which of the keys belong to objects that exist; None for all."""


class STMLBlock(nn.Module):
    """Pre-norm transformer block; objects, references and test frame share all of its weights.

    Args:
        channels: C.
        heads: Heads of the attention.
        drop_path: Stochastic depth, drawn for each stream.
    """

    def __init__(self, channels: int, heads: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attn = Attention(channels, heads)
        self.mlp = MLP(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, context: KeysValues | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Update tokens that see themselves and a context.

        Args:
            x: (B, n, C).
            context: Keys and values of others, (B, heads, n', d).
            mask: bool, broadcast to (B, heads, n, n + n'): True where a key is seen; None for all.

        Returns:
            (B, n, C), and the keys and values of x itself, (B, heads, n, d).
        """
        q, *own = self.attn.project(self.norm1(x))
        k, v = own if context is None else (torch.cat(pair, dim=2) for pair in zip(own, context, strict=True))
        x = x + self.drop_path(self.attn.attend(q, k, v, mask))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x, (own[0], own[1])

    def keys_values(self, x: Tensor) -> KeysValues:
        """What others see of tokens (B, n, C), without updating them."""
        _, k, v = self.attn.project(self.norm1(x))
        return k, v


class Attention(nn.Module):
    """Projections of multi-head attention, which tokens of all streams share."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, C) to queries, keys and values, (B, heads, n, d) each."""
        q, k, v = (
            self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, n, d) each
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, n, C): what queries (B, heads, n, d) read; `mask` is bool, True where a key is seen."""
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads, n, d)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, n, C)


class MLP(nn.Module):
    """Two linear layers with a GELU between them, (..., C) -> (..., C)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token."""
        return self.fc2(F.gelu(self.fc1(x)))


def make_context(
    blocks: Sequence[STMLBlock],
    objects: Tensor | None,
    references: Tensor | None,
    present: Tensor | None = None,
) -> Context | None:
    """Run objects and references through the blocks.

    Args:
        blocks: From the first on.
        objects: (B, K, C), or None.
        references: (B, m, N, C), or None.
        present: (B, K) bool, which objects exist; None for all, or where there are no objects.

    Returns:
        None where there are neither objects nor references.
    """
    if objects is None and references is None:
        return None
    of_objects = None if present is None else present[:, None, None] | _itself(present)  # (B, 1, K, K)
    videos, count, cells = references.shape[:3] if references is not None else (0, 0, 0)
    frames = references.flatten(0, 1) if references is not None else None  # (B m, N, C)
    of_frames = None if present is None else _after(cells, present.repeat_interleave(count, dim=0))
    seen = []
    for block in blocks:
        last = block is blocks[-1]
        own: KeysValues | None = None
        if objects is not None and not (last and frames is not None):
            objects, own = block(objects, mask=of_objects)
        if frames is None:
            assert own is not None
            seen.append(own)
        elif last:
            seen.append(_of_videos(block.keys_values(frames), videos))
        else:
            each = None if own is None else tuple(x.repeat_interleave(count, dim=0) for x in own)
            frames, keys_values = block(frames, each, of_frames)
            seen.append(_of_videos(keys_values, videos))
    return Context(tuple(seen), present if frames is None else None)


def _itself(present: Tensor) -> Tensor:
    """(K, K): an object that does not exist sees itself; the mean of nothing is not a number."""
    return torch.eye(present.shape[1], dtype=torch.bool, device=present.device)


def _after(cells: int, present: Tensor) -> Tensor:
    """Mask (B, 1, 1, cells + n) of keys that all exist and those of `present` (B, n) behind them."""
    return F.pad(present, (cells, 0), value=True)[:, None, None]


def _of_videos(keys_values: KeysValues, videos: int) -> KeysValues:
    """From each frame's own, (B m, heads, N, d), to each video's, (B, heads, m N, d)."""
    k, v = (x.unflatten(0, (videos, -1)).transpose(1, 2).flatten(2, 3) for x in keys_values)
    return k, v


def see(blocks: Sequence[STMLBlock], tokens: Tensor, context: Context | None) -> Tensor:
    """Run the test frame through the blocks: (B, N, C) -> (B, N, C)."""
    present = context.present if context is not None else None
    mask = None if present is None else _after(tokens.shape[1], present)
    for i, block in enumerate(blocks):
        tokens, _ = block(tokens, context.keys_values[i] if context is not None else None, mask)
    return tokens


def see_jointly(
    blocks: Sequence[STMLBlock],
    tokens: Tensor,
    objects: Tensor | None,
    references: Tensor | None,
    present: Tensor | None = None,
) -> Tensor:
    """Run the test frame through the blocks, where every token sees all of them (Table 1, "Joint").

    Args:
        blocks: From the first on.
        tokens: (B, N, C) of the test frame.
        objects: As for `make_context`.
        references: As for `make_context`.
        present: As for `make_context`.

    Returns:
        (B, N, C), the test frame's share.
    """
    count = tokens.shape[1]
    flat = references.flatten(1, 2) if references is not None else None  # (B, m N, C)
    joined = torch.cat([x for x in (tokens, flat, objects) if x is not None], dim=1)  # (B, N + m N + K, C)
    mask = None if present is None else _after(joined.shape[1] - present.shape[1], present)
    for block in blocks:
        joined, _ = block(joined, mask=mask)
    return joined[:, :count]
