"""Heterogeneous interaction between the two memory levels (paper section 3.3): PLAM and SGIM.

Both refine a `target` level with a `source` level of another resolution. In the paper PLAM refines the high
level (stage 4) from the shallow one (stage 2) and SGIM the reverse; Table 4's "Hetero" rows swap them, so
each works in either direction.

B batch, Ct Cs channels of target and source, ht wt / hs ws their grids.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import CBAM, ConvReLU
from hmhi.memory.readout import MemoryReadout


class PLAM(nn.Module):
    """Pixel-guided local alignment: convolve the source onto the target's grid, weigh both, add (Eq. 8-10).

    Note:
        As in the official weights, the source comes first in the concatenation and the last step is a 1x1
        convolution with ReLU and a skip, where the paper writes the other order and a feed-forward layer.

    Args:
        target_channels: Ct.
        source_channels: Cs.
        stride: Cells of the source for each cell of the target, along one side; below 1 when the source is
            the coarser of the two, which is then brought to the target's grid by bilinear interpolation.
    """

    def __init__(self, target_channels: int, source_channels: int, *, stride: float = 4) -> None:
        super().__init__()
        step = max(1, int(stride))
        kernel = 2 * step - 1 if step > 1 else 7
        self.align = nn.Sequential(
            ConvReLU(
                source_channels,
                target_channels,
                kernel,
                stride=step,
                groups=math.gcd(source_channels, target_channels),
            ),
            ConvReLU(target_channels, target_channels),
        )
        self.upsample = stride < 1
        self.attention = CBAM(2 * target_channels)
        self.reduce = ConvReLU(2 * target_channels, target_channels)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Refine target (B, Ct, ht, wt) with source (B, Cs, hs, ws); returns (B, Ct, ht, wt)."""
        if self.upsample:
            source = F.interpolate(
                source, size=target.shape[-2:], mode="bilinear", align_corners=False
            )  # (B, Cs, ht, wt)
        joined = torch.cat((self.align(source), target), dim=1)  # (B, 2 Ct, ht, wt)
        return self.reduce(self.attention(joined)) + target


class SGIM(nn.Module):
    """Semantic-guided global integration: every target cell attends to all source cells (Eq. 11-12).

    Args:
        target_channels: Ct.
        source_channels: Cs.
        ffn_channels: Hidden width of the feed-forward layer.
        dropout: Rate, training only.
    """

    def __init__(
        self, target_channels: int, source_channels: int, *, ffn_channels: int = 2048, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(source_channels, target_channels), nn.ReLU())
        self.integrate = MemoryReadout(
            target_channels,
            ffn_channels=ffn_channels,
            dropout=dropout,
            self_position=True,
            key_position="none",
        )

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Refine target (B, Ct, ht, wt) with source (B, Cs, hs, ws); returns (B, Ct, ht, wt)."""
        h, w = source.shape[-2:]
        tokens = self.project(source.flatten(2).transpose(1, 2))  # (B, hs*ws, Ct)
        return self.integrate(target, *self.integrate.keys_values(tokens, (h, w)))
