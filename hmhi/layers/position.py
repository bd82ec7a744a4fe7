"""Two-dimensional position encodings for any h x w grid: additive sines and axial rotations.

N = h*w tokens are row-major: token i sits at row ``i // w`` and column ``i % w``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sine_position(h: int, w: int, channels: int, device: torch.device) -> Tensor:
    """Sine encoding of a grid, as DETR defines it (Carion et al., ECCV 2020, appendix A.4), normalised.

    The first half of the channels encodes the row and the second half the column. Positions run from 1 to h
    (or w) and are scaled to (0, 2 pi]; even channels hold sines and odd ones cosines.

    Args:
        h: Rows.
        w: Columns.
        channels: Width of the encoding, a multiple of four.
        device: Where to make it.

    Returns:
        float32 (1, h * w, channels), values in [-1, 1].
    """
    half = channels // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    wavelength = 10000.0 ** (2.0 * torch.div(index, 2, rounding_mode="floor") / half)

    def encode(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        angle = (position / (length + 1e-6) * (2.0 * torch.pi))[:, None] / wavelength  # (length, half)
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=-1).flatten(1)  # (length, half)

    rows = encode(h)[:, None, :].expand(h, w, half)  # (h, w, C / 2)
    columns = encode(w)[None, :, :].expand(h, w, half)  # (h, w, C / 2)
    return torch.cat((rows, columns), dim=-1).reshape(1, h * w, channels)  # (1, N, C)


MAE_GRID = 14
"""Side of the grid that MAE is trained on: 224 pixels in patches of 16."""


def mae_position(h: int, w: int, channels: int, device: torch.device) -> Tensor:
    """MAE's sine encoding (He et al., CVPR 2022), stretched from its 14 x 14 grid over a grid of any size.

    The first half of the channels encodes the column and the second half the row; of each half, the first half
    holds sines and the second cosines.

    Args:
        h: Rows.
        w: Columns.
        channels: Width of the encoding, a multiple of four.
        device: Where to make it.

    Returns:
        float32 (1, h * w, channels), values in [-1, 1].
    """
    quarter = channels // 4
    frequency = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)

    def encode(length: int) -> Tensor:
        place = (torch.arange(length, dtype=torch.float64) + 0.5) * (MAE_GRID / length) - 0.5
        angle = place[:, None] * frequency  # (length, C / 4)
        return torch.cat((angle.sin(), angle.cos()), dim=1).float().to(device)  # (length, C / 2)

    rows = encode(h)[:, None, :].expand(h, w, 2 * quarter)  # (h, w, C / 2)
    columns = encode(w)[None, :, :].expand(h, w, 2 * quarter)  # (h, w, C / 2)
    return torch.cat((columns, rows), dim=-1).reshape(1, h * w, channels)  # (1, N, C)


def rotary_table(h: int, w: int, channels: int, device: torch.device, theta: float = 10000.0) -> Tensor:
    """Angles of axial rotary encoding (Su et al., 2021; axial form as in Heo et al., ECCV 2024).

    The first half of the channel pairs turns with the column, the second half with the row.

    Args:
        h: Rows.
        w: Columns.
        channels: Width of one head, a multiple of four.
        device: Where to make it.
        theta: Base of the geometric series of frequencies.

    Returns:
        float32 (2, h * w, channels / 2): the cosine and the sine of each pair's angle.
    """
    exponent = torch.arange(0, channels, 4, device=device, dtype=torch.float32) / channels
    frequency = 1.0 / theta**exponent  # (channels / 4,)
    row = torch.arange(h, device=device, dtype=torch.float32).repeat_interleave(w)  # (N,)
    column = torch.arange(w, device=device, dtype=torch.float32).repeat(h)  # (N,)
    angle = torch.cat((column[:, None] * frequency, row[:, None] * frequency), dim=1)  # (N, C / 2)
    return torch.stack((angle.cos(), angle.sin()))  # (2, N, C / 2)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn consecutive channel pairs (2j, 2j + 1) by a table's angles, in float32.

    Args:
        x: (B, N, C).
        table: (2, N, C / 2) from `rotary_table`.

    Returns:
        (B, N, C) of x's dtype.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, N, C / 2) each
    cos, sin = table
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)  # (B, N, C / 2, 2)
    return turned.flatten(-2).to(x.dtype)  # (B, N, C)
