"""Convolutional and feed-forward blocks that several parts of the network share.

B batch, C channels, h w cells of a feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPEN_GATE = 4.0  # sigmoid(4) = 0.98


class ConvReLU(nn.Sequential):
    """Convolution with bias, then ReLU; "same" padding for odd kernels at stride 1."""

    def __init__(
        self, channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups)
        nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        super().__init__(conv, nn.ReLU(inplace=True))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., ECCV 2018), after a 3x3 convolution.

    Note:
        As in the official weights, the shared channel MLP does not reduce its width, and the spatial map
        comes from two 3x3 convolutions instead of one 7x7.

    Args:
        channels: C of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        channel_gate, spatial_gate = nn.Conv2d(channels, channels, 1), nn.Conv2d(16, 1, 3, padding=1)
        self.channel = nn.Sequential(ConvReLU(channels, channels), channel_gate)
        self.spatial = nn.Sequential(ConvReLU(2, 16, 3), spatial_gate)
        # Start as a plain convolution that keeps the variance: two half-open gates at each of four levels would
        # fade the coarse features by 256 before training begins.
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear")
        for layer, bias in ((self.conv, 0.0), (channel_gate, OPEN_GATE / 2), (spatial_gate, OPEN_GATE)):
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels and then the cells of x, (B, C, h, w) -> (B, C, h, w)."""
        x = self.conv(x)
        mean, peak = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)  # (B, C, 1, 1) each
        x = x * (self.channel(mean) + self.channel(peak)).sigmoid()
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)  # (B, 2, h, w)
        return x * self.spatial(pooled).sigmoid()


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each cell of a (B, C, h, w) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, (B, C, h, w) -> (B, C, h, w)."""
        y = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        )  # (B, h, w, C)
        return y.permute(0, 3, 1, 2)  # (B, C, h, w)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, norm, pointwise MLP and layer scale around a skip (Liu et al., CVPR 2022).

    Args:
        channels: C of input and output.
        layer_scale: Initial value of the learned per-channel gain on the residual.
    """

    def __init__(self, channels: int, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Refine, (B, C, h, w) -> (B, C, h, w)."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # (B, h, w, C)
        y = self.fc2(F.gelu(self.fc1(y))) * self.gamma  # (B, h, w, C)
        return x + y.permute(0, 3, 1, 2)  # (B, C, h, w)


class DropPath(nn.Module):
    """Stochastic depth: in training, leaves a sample's residual out at a rate (Huang et al., ECCV 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole samples of (B, ...) and scale the others to keep the mean."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand((len(x),) + (1,) * (x.dim() - 1), device=x.device) >= self.rate  # (B, 1, ...)
        return x * keep / (1.0 - self.rate)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them, (..., C) -> (..., C)."""

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
        )
