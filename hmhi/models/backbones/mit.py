"""Mix Transformer (MiT) encoder of SegFormer (Xie et al., NeurIPS 2021), with optional flow adapters.

LayerNorm epsilons follow NVIDIA's weights: 1e-6 in blocks and after stages, 1e-5 in patch embeddings and
after the spatial reduction.

B batch, C channels, h w cells of a stage, N = h*w tokens, d width of one head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import DropPath
from hmhi.models.backbones.base import Backbone

DEPTHS = {
    "mit_b0": (2, 2, 2, 2),
    "mit_b1": (2, 2, 2, 2),
    "mit_b2": (3, 4, 6, 3),
    "mit_b3": (3, 4, 18, 3),
    "mit_b4": (3, 8, 27, 3),
    "mit_b5": (3, 6, 40, 3),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # side of the cells that one key of a stage's self-attention covers


class MixTransformer(Backbone):
    """Four stages of overlapping patch embedding and attention with reduced keys.

    Args:
        name: ``mit_b0`` to ``mit_b5``.
        flow_adapters: Give each block bottleneck adapters that act on the flow rows of the batch only: the
            motion-appearance scheme that the paper takes from ISTC-Net ("SMTC" in the release).
        drop_path: Stochastic depth of the last block; grows linearly from 0.
    """

    def __init__(self, name: str = "mit_b1", *, flow_adapters: bool = True, drop_path: float = 0.1) -> None:
        super().__init__()
        depths = DEPTHS[name]
        self.channels = (32, 64, 160, 256) if name == "mit_b0" else (64, 128, 320, 512)
        rates = iter(drop_path * i / (sum(depths) - 1) for i in range(sum(depths)))
        self.stages = nn.ModuleList(
            Stage(
                3 if i == 0 else self.channels[i - 1],
                self.channels[i],
                heads=HEADS[i],
                reduction=REDUCTIONS[i],
                patch=7 if i == 0 else 3,
                stride=4 if i == 0 else 2,
                drop_paths=[next(rates) for _ in range(depths[i])],
                flow_adapters=flow_adapters,
            )
            for i in range(4)
        )
        self.apply(_init_weights)
        for module in self.modules():
            if isinstance(module, Adapter):
                nn.init.zeros_(module.up.weight)  # adapters start as the identity (LoRA's choice)

    def forward(self, x: Tensor, flow_from: int) -> list[Tensor]:
        """Encode a batch.

        Args:
            x: (B, 3, H, W) normalised; H and W multiples of 32.
            flow_from: Rows from here on are flow maps, on which adapters act.

        Returns:
            Stages 1-4, (B, C, h, w) each, after the stage's norm.
        """
        out = []
        for stage in self.stages:
            x = stage(x, flow_from)
            out.append(x)
        return out


class Stage(nn.Module):
    """Patch embedding, blocks and a norm."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        heads: int,
        reduction: int,
        patch: int,
        stride: int,
        drop_paths: list[float],
        flow_adapters: bool,
    ) -> None:
        super().__init__()
        self.embed = PatchEmbed(in_channels, channels, patch, stride)
        self.blocks = nn.ModuleList(
            Block(channels, heads, reduction, drop_path=rate, flow_adapters=flow_adapters)
            for rate in drop_paths
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor, flow_from: int) -> Tensor:
        """(B, Cin, H, W) to (B, C, h, w)."""
        x, grid = self.embed(x)
        for block in self.blocks:
            x = block(x, grid, flow_from)
        return _to_map(self.norm(x), grid)


class PatchEmbed(nn.Module):
    """Overlapping convolution, then norm."""

    def __init__(self, in_channels: int, channels: int, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch, stride, padding=patch // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, Cin, H, W) to tokens (B, N, C) and their grid (h, w)."""
        x = self.proj(x)
        grid = (x.shape[2], x.shape[3])
        return self.norm(_to_tokens(x)), grid  # (B, N, C)


class Block(nn.Module):
    """Attention and convolutional MLP, each around a skip; then the flow adapter."""

    def __init__(
        self, channels: int, heads: int, reduction: int, *, drop_path: float, flow_adapters: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = ReducedAttention(channels, heads, reduction, flow_adapters=flow_adapters)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvMLP(channels, 4 * channels)
        self.adapter = Adapter(channels, channels) if flow_adapters else None

    def forward(self, x: Tensor, grid: tuple[int, int], flow_from: int) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid, flow_from))
        x = x + self.drop_path(self.mlp(self.norm2(x), grid))
        return _add_to_flow(x, x, self.adapter, flow_from)


class ReducedAttention(nn.Module):
    """Multi-head self-attention whose keys and values come from a grid reduced by a strided convolution."""

    def __init__(self, channels: int, heads: int, reduction: int, *, flow_adapters: bool) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels)
        self.q_adapter = Adapter(channels, channels) if flow_adapters else None
        self.kv_adapter = Adapter(channels, 2 * channels) if flow_adapters else None

    def forward(self, x: Tensor, grid: tuple[int, int], flow_from: int) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        y = x
        if self.reduction > 1:
            y = self.norm(_to_tokens(self.sr(_to_map(x, grid))))  # (B, N / r^2, C)
        q = _add_to_flow(self.q(x), x, self.q_adapter, flow_from)
        kv = _add_to_flow(self.kv(y), y, self.kv_adapter, flow_from)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, d)
        k, v = kv.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N / r^2, d) each
        out = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, N, C)


class ConvMLP(nn.Module):
    """MLP with a depthwise 3x3 convolution between its layers ("Mix-FFN")."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        x = self.dwconv(_to_map(self.fc1(x), grid))  # (B, 4 C, h, w)
        return self.fc2(F.gelu(_to_tokens(x)))


class Adapter(nn.Sequential):
    """Bottleneck that adapts flow tokens to weights learned on images, (B, N, C) -> (B, N, Cout)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, channels // 2)
        self.relu = nn.ReLU()
        self.up = nn.Linear(channels // 2, out_channels)


def _add_to_flow(x: Tensor, source: Tensor, adapter: Adapter | None, flow_from: int) -> Tensor:
    """Add the adapter's reading of `source` to the flow rows of x."""
    if adapter is None or flow_from >= x.shape[0]:
        return x
    return torch.cat((x[:flow_from], x[flow_from:] + adapter(source[flow_from:])))  # (B, N, C)


def _to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h*w, C)."""
    return x.flatten(2).transpose(1, 2)  # (B, N, C)


def _to_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, C) to (B, C, h, w)."""
    return x.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)


def _init_weights(module: nn.Module) -> None:
    """SegFormer's initialisation."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
