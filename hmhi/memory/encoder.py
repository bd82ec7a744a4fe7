"""Memory encoder: what is written to a bank for a frame (paper section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn

from hmhi.layers.blocks import ChannelNorm, ConvNeXtBlock

MASK_STRIDE = 4  # of the decoder's logits against the image


class MemoryEncoder(nn.Module):
    """Joins a stage's refined feature with the predicted mask.

    Args:
        channels: C of the stage.
        stage: Encoder stage, 1-4, of stride ``2 ** (stage + 1)``.
    """

    def __init__(self, channels: int, stage: int) -> None:
        super().__init__()
        stride = 2 ** (stage + 1) // MASK_STRIDE  # 1, 2, 4, 8
        hidden = _mask_channels(channels)
        self.mask = nn.Sequential(
            nn.Conv2d(1, hidden, 2 * stride - 1, stride, padding=stride - 1),
            ChannelNorm(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
            ChannelNorm(channels),
            nn.GELU(),
        )
        self.feature = nn.Conv2d(channels, channels, 1)
        self.fuse = nn.Sequential(ConvNeXtBlock(channels), ConvNeXtBlock(channels))

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Encode one frame.

        Args:
            feature: (B, C, h, w), the stage's feature after read-out and interaction.
            logits: (B, 1, H / 4, W / 4), the decoder's output before its final up-sampling.

        Returns:
            (B, h * w, C) memory tokens, row-major.
        """
        fused = self.fuse(self.feature(feature) + self.mask(logits.sigmoid()))  # (B, C, h, w)
        return fused.flatten(2).transpose(1, 2)  # (B, h*w, C)


def _mask_channels(channels: int) -> int:
    """Width n^n with n = floor(log4 channels), as in the official weights: 27 from C = 64 on, 256 from 256."""
    n = (channels.bit_length() - 1) // 2
    return n**n
