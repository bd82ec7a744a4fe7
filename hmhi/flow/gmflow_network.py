"""The network of GMFlow (Xu et al., "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022).

Section numbers are those of arXiv 2111.13680. Parameters are named as in the published weights.

B pairs of frames, H W pixels (multiples of 32), h w cells at stride 4 or 8, C = 128 channels, N = h * w.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.flow.gmflow_attention import (
    gather,
    gather_local,
    places_like,
    position_in_windows,
    warp,
    window_mask,
    window_order,
)

MULTIPLE = 32
"""Sides of the input are multiples of it: the eight windows across the stride-4 map."""

_COARSE_WINDOWS, _FINE_WINDOWS = 2, 8  # attention windows along each side at stride 8 and at stride 4
_MATCH_RADIUS, _PROPAGATE_RADIUS = 4, 1  # cells at stride 4
_TOKENS = 4096  # that a CPU takes through a feed-forward layer at a time
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """What the encoder makes of B frames."""

    fine: Tensor
    """(B, h, w, C) at stride 4."""
    coarse: Tensor
    """(B, h, w, C) at stride 8."""


class GMFlow(nn.Module):
    """Flow from features that both frames' transformer made distinctive, by comparing all cells with all.

    Sub-modules run in the dtype of their parameters; matching and all that has coordinates runs in float32.

    Args:
        widths: Channels of the encoder's three stages; the last one is C.
        blocks: Transformer blocks.
        expansion: Hidden width of the feed-forward layers, relative to their 2 C inputs.
    """

    def __init__(
        self, widths: tuple[int, int, int] = (64, 96, 128), blocks: int = 6, expansion: int = 4
    ) -> None:
        super().__init__()
        channels = widths[-1]
        self.backbone = Encoder(widths)
        self.transformer = Transformer(channels, blocks, expansion)
        self.feature_flow_attn = Propagation(channels)
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + channels, 2 * channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * channels, 4 * 4 * 9, 1),
        )

    def forward(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        """Flow of B pairs.

        Args:
            frames_a: (B, 3, H, W) in [0, 1], RGB.
            frames_b: Of the same shape.

        Returns:
            (B, 2, H, W) float32: x and y, in pixels, from each pixel of `frames_a`.
        """
        a, b = self.encode(frames_a), self.encode(frames_b)
        return self.decode(a.fine, b.fine, *self.relate(a.coarse, b.coarse))

    def encode(self, frames: Tensor) -> Features:
        """Features of single frames, (B, 3, H, W) in [0, 1] (Sec. 3.1, 3.4)."""
        mean, std = (frames.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return self.backbone((frames - mean) / std)

    def relate(self, coarse_a: Tensor, coarse_b: Tensor) -> tuple[Tensor, Tensor]:
        """The stride-8 features of B pairs of frames after the transformer (Sec. 3.2), (B, h, w, C) each.

        They serve the flow in both directions.
        """
        return self.transformer(coarse_a, coarse_b, _COARSE_WINDOWS)

    def decode(self, fine_a: Tensor, fine_b: Tensor, related_a: Tensor, related_b: Tensor) -> Tensor:
        """Flow by matching at stride 8 and refining at stride 4.

        Args:
            fine_a: (B, 2h, 2w, C) of the first frames, at stride 4.
            fine_b: Of the second frames.
            related_a: (B, h, w, C) from `relate`.
            related_b: Likewise.

        Returns:
            (B, 2, H, W) float32.
        """
        flow = match_globally(related_a, related_b)  # Sec. 3.1
        flow = self.feature_flow_attn(related_a, flow)  # Sec. 3.3
        flow = 2 * F.interpolate(
            flow.permute(0, 3, 1, 2), scale_factor=2.0, mode="bilinear", align_corners=True
        ).permute(0, 2, 3, 1)  # (B, h, w, 2) at stride 4
        fine_a, fine_b = self.transformer(fine_a, warp(fine_b, flow), _FINE_WINDOWS)  # Sec. 3.4
        flow = flow + match_locally(fine_a, fine_b, _MATCH_RADIUS)
        flow = self.feature_flow_attn(fine_a, flow, _PROPAGATE_RADIUS)
        return self._upsample(fine_a, flow)

    def _upsample(self, features: Tensor, flow: Tensor) -> Tensor:
        """Each pixel's flow as a convex combination of the 3 x 3 cells around its own, as in RAFT."""
        batch, height, width = flow.shape[:3]
        joined = torch.cat([flow.to(features.dtype), features], dim=3).permute(0, 3, 1, 2)  # (B, 2+C, h, w)
        weights = self.upsampler(joined).float().view(batch, 1, 9, 4, 4, height, width).softmax(dim=2)
        around = F.unfold(4 * flow.permute(0, 3, 1, 2), 3, padding=1)  # (B, 2*9, h*w)
        mixed = (weights * around.view(batch, 2, 9, 1, 1, height, width)).sum(dim=2)  # (B, 2, 4, 4, h, w)
        return mixed.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, 4 * height, 4 * width)  # (B, 2, H, W)


class Encoder(nn.Module):
    """Residual convolutions with instance norms to stride 4; one shared kernel then reads at strides 4 and 8."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.layer1 = nn.Sequential(Residual(first, first), Residual(first, first))
        self.layer2 = nn.Sequential(Residual(first, second, stride=2), Residual(second, second))
        self.layer3 = nn.Sequential(Residual(second, third), Residual(third, third))
        self.conv2 = nn.Conv2d(third, third, 1)
        self.trident_conv = nn.Conv2d(third, third, 3, padding=1, bias=False)

    def forward(self, frames: Tensor) -> Features:
        """Features of normalised frames (B, 3, H, W)."""
        dtype = self.conv1.weight.dtype
        layout = torch.contiguous_format if dtype == torch.float32 else torch.channels_last
        x = instance_norm(self.conv1(frames.to(dtype, memory_format=layout))).relu_()
        x = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        kernel = self.trident_conv.weight
        fine, coarse = (F.conv2d(x, kernel, stride=stride, padding=1) for stride in (1, 2))
        return Features(fine.permute(0, 2, 3, 1), coarse.permute(0, 2, 3, 1))  # (B, h, w, C)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, with a ReLU after each and after their sum."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride)) if inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
        y = instance_norm(self.conv1(x)).relu_()
        y = instance_norm(self.conv2(y)).relu_()
        shortcut = x if self.downsample is None else instance_norm(self.downsample(x))
        return y.add_(shortcut).relu_()


class Transformer(nn.Module):
    """Self- and cross-attention of two frames within windows, shifted by half a window in every second block."""

    def __init__(self, channels: int, blocks: int, expansion: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(channels, expansion) for _ in range(blocks))

    def forward(self, a: Tensor, b: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """Features that know of each other.

        Args:
            a: (B, h, w, C).
            b: Of the same shape.
            windows: Their number along each side, which it divides.

        Returns:
            Two tensors of the same shape.
        """
        batch, height, width, channels = a.shape
        position = position_in_windows(height // windows, width // windows, channels, a.device)
        both = torch.cat([a, b]) + position.repeat(windows, windows, 1).to(a.dtype)  # (2B, h, w, C)
        both = both.flatten(1, 2)  # (2B, N, C)
        mask = window_mask(height, width, windows, a.device).to(a.dtype)
        order = torch.arange(height * width, device=a.device)  # of the tokens, as they lie now
        for number, block in enumerate(self.layers):
            shifted = number % 2 == 1
            wanted = window_order(height, width, windows, shifted, a.device)
            both = both.index_select(1, order.argsort()[wanted])
            order = wanted
            both = block(both, windows * windows, mask if shifted else None)
        both = both.index_select(1, order.argsort()).view(2 * batch, height, width, channels)
        return both[:batch], both[batch:]


class Block(nn.Module):
    """Each frame attends to itself, then to the other one."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.self_attn = Attention(channels)
        self.cross_attn_ffn = Attention(channels, expansion)

    def forward(self, both: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        """Update the tokens of both frames.

        Args:
            both: (2B, N, C), window after window: the first frames, then the second ones.
            windows: Their number S in a frame.
            mask: Added to the scores, (1, S, N / S, N / S).
        """
        # The other frame is read as it was before its own self-attention.
        other = both.roll(both.shape[0] // 2, dims=0)
        return self.cross_attn_ffn(self.self_attn(both, both, windows, mask), other, windows, mask)


class Attention(nn.Module):
    """Single-head attention, and a feed-forward layer where `expansion` says how wide."""

    def __init__(self, channels: int, expansion: int | None = None) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.k_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp: nn.Sequential | None = None
        if expansion is not None:
            wide = 2 * channels * expansion
            self.mlp = nn.Sequential(
                nn.Linear(2 * channels, wide, bias=False), nn.GELU(), nn.Linear(wide, channels, bias=False)
            )
            self.norm2 = nn.LayerNorm(channels)

    def forward(self, source: Tensor, target: Tensor, windows: int, mask: Tensor | None) -> Tensor:
        """`source` (2B, N, C) with what it reads in `target`, see `Block`."""
        query, key, value = (
            project(tokens).unflatten(1, (windows, -1))  # (2B, S, N/S, C)
            for project, tokens in ((self.q_proj, source), (self.k_proj, target), (self.v_proj, target))
        )
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).view_as(source)  # (2B, N, C)
        # What follows concerns each token by itself. On a CPU, a few thousand at a time stay in its cache.
        size = _TOKENS if source.device.type == "cpu" else source.shape[0] * source.shape[1]
        parts = zip(source.flatten(0, 1).split(size), read.flatten(0, 1).split(size), strict=True)
        return torch.cat([self._receive(*part) for part in parts]).view_as(source)

    def _receive(self, source: Tensor, read: Tensor) -> Tensor:
        message = self.norm1(self.merge(read))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat([source, message], dim=1)))
        return source + message


class Propagation(nn.Module):
    """Flow from cells that match to cells that look alike but have no match (Sec. 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)

    def forward(self, features: Tensor, flow: Tensor, radius: int | None = None) -> Tensor:
        """Mix the flow of similar cells.

        Args:
            features: (B, h, w, C).
            flow: (B, h, w, 2) float32.
            radius: How many cells away to look; None stands for all of them.

        Note:
            Among all cells the published weights take their keys from the projected queries.
        """
        query = self.q_proj(features.to(self.q_proj.weight.dtype))
        if radius is None:
            return gather(query.float(), self.k_proj(query).float(), flow)
        key = self.k_proj(features.to(self.k_proj.weight.dtype))
        return gather_local(query.float(), key.float(), flow, radius, beyond=0.0)


def instance_norm(x: Tensor) -> Tensor:
    """Instance norm of (B, C, h, w) without parameters.

    In 16 bits as a group norm, which keeps channels last; in float32 that one loses digits.
    """
    return F.instance_norm(x) if x.dtype == torch.float32 else F.group_norm(x, x.shape[1])


def match_globally(a: Tensor, b: Tensor) -> Tensor:
    """Flow (B, h, w, 2) float32 in cells: the mean place in `b`, weighted by likeness, less its own (Eq. 1-3)."""
    own = places_like(a)
    return gather(a.float(), b.float(), own) - own


def match_locally(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """As `match_globally`, among the cells of `b` that lie no more than `radius` from the own place."""
    own = places_like(a)
    return gather_local(a.float(), b.float(), own, radius, beyond=-math.inf) - own
