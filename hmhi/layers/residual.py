"""Convolutions without norms, as the decoders of prompted models have them.

B batch, C channels, h w cells of a feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a skip; (B, C, h, w) -> (B, Cout, h, w).

    Args:
        channels: C.
        out_channels: Cout, C by default; the skip is a 3x3 convolution where they differ.
    """

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = out_channels or channels
        self.conv1, self.conv2 = conv3x3(channels, out_channels), conv3x3(out_channels, out_channels)
        self.skip = conv3x3(channels, out_channels) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Refine."""
        return self.skip(x) + self.conv2(F.relu(self.conv1(F.relu(x))))


def conv3x3(channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)


def up(x: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement, (B, C, h, w) -> (B, C, factor h, factor w)."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def init_weights(module: nn.Module) -> None:
    """Convolutions that keep the variance, biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
