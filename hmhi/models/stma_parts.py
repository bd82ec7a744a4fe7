"""What STMA has beside its backbone: value encoder, neck and decoder, after XMem and SimVOS.

B videos, R rows (objects of all videos), h w cells at 1/16, Hp Wp pixels of the padded frame, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import ChannelNorm
from hmhi.layers.residual import ResBlock, conv3x3, init_weights, up


class Gates(nn.Module):
    """CBAM as it was published (Woo et al., ECCV 2018): how much of each channel, then of each cell, is kept.

    Args:
        channels: C.
        reduction: C over the width of the channel gate.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels and then the cells of x, (R, C, h, w) -> (R, C, h, w)."""
        gate = (self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3)))).sigmoid()  # (R, C)
        x = x * gate[:, :, None, None]
        pooled = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)  # (R, 2, h, w)
        return x * self.spatial(pooled).sigmoid()


class Join(nn.Module):
    """Joins what was seen of a frame with what belongs to an object; (R, C1, h, w), (R, C2, h, w) -> (R, C, h, w)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce, self.gates = ResBlock(channels, out_channels), Gates(out_channels)
        self.refine = ResBlock(out_channels)

    def forward(self, feature: Tensor, of_object: Tensor) -> Tensor:
        """Join."""
        x = self.reduce(torch.cat((feature, of_object), dim=1))  # (R, C, h, w)
        return self.refine(x + self.gates(x))


class Neck(nn.Module):
    """Levels at 1/4 and 1/8 for a backbone that has none, from its last feature (SimVOS).

    Args:
        channels: C of the feature.
        stages: C at 1/4 and 1/8.
    """

    def __init__(self, channels: int, stages: Sequence[int]) -> None:
        super().__init__()
        self.eighth = nn.ConvTranspose2d(channels, stages[1], 2, stride=2)
        self.quarter = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            ChannelNorm(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, stages[0], 2, stride=2),
        )

    def forward(self, feature: Tensor) -> list[Tensor]:
        """(B, C, h, w) to (B, C1, 4 h, 4 w) and (B, C2, 2 h, 2 w)."""
        return [self.quarter(feature), self.eighth(feature)]


class STMADecoder(nn.Module):
    """Residual up-sampling blocks to one channel of logits for each object (Eq. 1).

    Args:
        feature_channels: C of the frame's feature at 1/16.
        skip_channels: C of its levels at 1/4 and 1/8.
        value_channels: C of what was read from memory.
        channels: Width at 1/16 and 1/8; half of it above.
    """

    def __init__(
        self, feature_channels: int, skip_channels: Sequence[int], value_channels: int, channels: int
    ) -> None:
        super().__init__()
        self.join = Join(feature_channels + value_channels, channels)
        self.skip8, self.skip4 = conv3x3(skip_channels[1], channels), conv3x3(skip_channels[0], channels // 2)
        self.refine8, self.refine4 = ResBlock(channels, channels // 2), ResBlock(channels // 2)
        self.predict = conv3x3(channels // 2, 1)
        self.apply(init_weights)
        nn.init.normal_(self.predict.weight, std=0.01)  # untrained, no pixel is sure

    def forward(self, feature: Tensor, skips: Sequence[Tensor], read: Tensor, owner: Tensor) -> Tensor:
        """Decode.

        Args:
            feature: (B, C, h, w).
            skips: (B, C1, 4 h, 4 w) and (B, C2, 2 h, 2 w).
            read: (R, Cv, h, w) from memory.
            owner: (R,) int64, the video of each object.

        Returns:
            (R, Hp, Wp) logits.
        """
        skip4, skip8 = self.skip4(skips[0]), self.skip8(skips[1])  # once for all objects of a video
        x = self.join(feature[owner], read)  # (R, C, h, w)
        x = self.refine8(skip8[owner] + up(x, 2))  # (R, C / 2, 2 h, 2 w)
        x = self.refine4(skip4[owner] + up(x, 2))  # (R, C / 2, 4 h, 4 w)
        return up(self.predict(F.relu(x)), 4)[:, 0]  # (R, Hp, Wp)
