"""Multi-scale decoder: four stages in, mask logits at a quarter of the image's size out (paper Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import CBAM, ConvReLU

PRIOR_LOGIT = -2.0  # untrained, every pixel is foreground with probability 0.12, about the share in real data


class Decoder(nn.Module):
    """From the coarsest stage up: lateral 1x1, join with the coarser level, 3x3, CBAM.

    Args:
        stage_channels: C of stages 1-4.
        channels: Width E of every level.
    """

    def __init__(self, stage_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvReLU(c, channels) for c in stage_channels)
        coarsest = len(stage_channels) - 1
        self.blends = nn.ModuleList(
            ConvReLU(channels if i == coarsest else 2 * channels, channels, 3) for i in range(coarsest + 1)
        )
        self.attentions = nn.ModuleList(CBAM(channels) for _ in stage_channels)
        self.predictor = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.constant_(self.predictor.bias, PRIOR_LOGIT)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Decode.

        Args:
            features: Stages 1-4, (B, C, H / 2^(s+1), W / 2^(s+1)) each.

        Returns:
            (B, 1, H / 4, W / 4) logits.
        """
        x: Tensor | None = None
        levels = zip(features, self.laterals, self.blends, self.attentions, strict=True)
        for feature, lateral, blend, attention in reversed(list(levels)):
            y = lateral(feature)  # (B, E, h, w)
            x = attention(blend(y) if x is None else _blend_upsampled(blend, y, x))
        return self.predictor(x)


def _blend_upsampled(blend: nn.Module, fine: Tensor, coarse: Tensor) -> Tensor:
    """`blend` of (B, E, h, w) joined with the enlarged (B, E, h / 2, w / 2)."""
    if fine.device.type != "cpu":  # whose convolutions are fast, and whose small products are not
        return blend(torch.cat((fine, upsample(coarse, 2)), dim=1))  # (B, 2 E, h, w) -> (B, E, h, w)
    conv = cast(nn.Conv2d, cast(ConvReLU, blend)[0])
    of_fine, of_coarse = conv.weight.split(fine.shape[1], dim=1)
    return F.relu_(F.conv2d(fine, of_fine, conv.bias, padding=1) + convolve_upsampled(coarse, of_coarse))


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bicubic enlargement by a whole factor, (B, C, h, w) -> (B, C, factor h, factor w)."""
    return F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)


def convolve_upsampled(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution of `upsample(x, 2)` without bias, in less than half of its operations.

    Mixing channels and enlarging commute. So channels are mixed on the small map, for each of the nine taps, and
    enlarging and summing over taps is one matrix product along the rows and one along the columns.

    Args:
        x: (B, C, h, w).
        weight: (Cout, C, 3, 3).

    Returns:
        (B, Cout, 2 h, 2 w), the numbers of `F.conv2d` with padding 1 up to rounding.
    """
    b, c, h, w = x.shape
    out_channels = weight.shape[0]
    rows, columns = _upsampling_taps(h, x), _upsampling_taps(w, x)
    columns = columns.permute(1, 2, 0).reshape(2 * w, 3 * w)  # (2 w, w * 3)
    cells = x.permute(0, 2, 3, 1).reshape(-1, c)  # (B * h * w, C)
    out = None
    for row, taps in zip(rows, weight.unbind(2), strict=True):  # (2 h, h), (Cout, C, 3)
        mixed = cells @ taps.permute(1, 2, 0).reshape(c, -1)  # (B * h * w, 3 Cout)
        wide = columns @ mixed.view(b * h, 3 * w, out_channels)  # (B * h, 2 w, Cout)
        wide = wide.view(b, h, -1)  # (B, h, 2 w * Cout)
        row = row.expand(b, -1, -1)  # (B, 2 h, h)
        out = row @ wide if out is None else torch.baddbmm(out, row, wide)  # (B, 2 h, 2 w * Cout)
    assert out is not None
    return out.view(b, 2 * h, 2 * w, out_channels).permute(0, 3, 1, 2)  # (B, Cout, 2 h, 2 w)


def _upsampling_taps(n: int, like: Tensor) -> Tensor:
    """(3, 2 n, n): what the three taps of a convolution with padding 1 read of a column enlarged by two."""
    matrix = _upsampling(n, like)
    zero = torch.zeros_like(matrix[:1])
    return torch.stack((torch.cat((zero, matrix[:-1])), matrix, torch.cat((matrix[1:], zero))))  # (3, 2 n, n)


def _upsampling(n: int, like: Tensor) -> Tensor:
    """(2 n, n) matrix that enlarges a column of n values."""
    impulses = torch.eye(n, device=like.device)[:, None, :, None]  # (n, 1, n, 1)
    return upsample(impulses, 2)[:, 0, :, 0].T.to(like.dtype)  # (2 n, n)
