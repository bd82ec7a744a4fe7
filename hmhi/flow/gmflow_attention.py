"""Where GMFlow's cells look: in windows, at all cells, at those around; and where they are.

B frames or pairs, h w cells, C channels, N = h * w, s windows along each side, n cells of a window, r radius.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def window_order(height: int, width: int, windows: int, shifted: bool, device: torch.device) -> Tensor:
    """Number of each cell, row by row, in the order in which windows hold them, (N) int64.

    Args:
        height: Cells h.
        width: Cells w.
        windows: Number s of windows along each side, which it divides.
        shifted: Shift the windows by half of themselves, so that the last ones hold cells of both edges.
        device: Of the result.
    """
    rows, columns = height // windows, width // windows
    numbers = torch.arange(height * width, device=device).view(height, width)
    if shifted:
        numbers = numbers.roll((-(rows // 2), -(columns // 2)), dims=(0, 1))
    return numbers.view(windows, rows, windows, columns).transpose(1, 2).flatten()  # (s*s*n)


def window_mask(height: int, width: int, windows: int, device: torch.device) -> Tensor:
    """Scores that keep both edges of the frame apart in shifted windows, (1, s*s, n, n): 0, or minus infinity."""

    def parts(side: int) -> Tensor:
        """(s, cells of a window): 1 in the second half of the last window, where the other edge begins."""
        size = side // windows
        return (torch.arange(side, device=device) >= side - size // 2).int().view(windows, size)

    part = 2 * parts(height)[:, None, :, None] + parts(width)[None, :, None, :]  # (s, s, rows, columns)
    part = part.reshape(1, windows * windows, -1)  # (1, s*s, n)
    apart = part[..., :, None] != part[..., None, :]
    return torch.zeros(apart.shape, device=device).masked_fill_(apart, -math.inf)


def position_in_windows(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sines and cosines of the place in a window, (height, width, channels) float32: half of them of y, then of x.

    Places run from 1 / side to 1, times 2 pi, at wavelengths that grow from 1 to 10,000 as in Vaswani et al. (2017).
    """
    half = channels // 2
    wavelength = 10000 ** (2 * torch.arange(half // 2, device=device) / half)  # (C/4)

    def waves(side: int) -> Tensor:
        place = torch.arange(1, side + 1, device=device) * (2 * math.pi / side)
        angle = place[:, None] / wavelength  # (side, C/4)
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)  # (side, C/2)

    y = waves(height)[:, None].expand(-1, width, -1)
    x = waves(width)[None].expand(height, -1, -1)
    return torch.cat([y, x], dim=2)


def gather(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
    """Mean of all values of a frame for each cell, weighted by the likeness of keys to its query.

    Args:
        query: (B, h, w, C) float32.
        key: Of the same shape.
        values: (B, h, w, V) float32.

    Returns:
        (B, h, w, V).
    """
    query, key, flat = query.flatten(1, 2), key.flatten(1, 2), values.flatten(1, 2)  # (B, N, C), (B, N, V)
    flat = F.pad(flat, (0, query.shape[2] - flat.shape[2]))  # the fast kernels want them as wide as the keys
    mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], flat[:, None])  # (B, 1, N, C)
    return mixed[:, 0, :, : values.shape[3]].reshape(values.shape)  # (B, h, w, V)


def gather_local(query: Tensor, key: Tensor, values: Tensor, radius: int, beyond: float) -> Tensor:
    """As `gather`, of the cells no more than `radius` away along each side.

    Args:
        query: (B, h, w, C) float32.
        key: Of the same shape.
        values: (B, h, w, V) float32; zero beyond the frame.
        radius: Cells to each side.
        beyond: Score of cells beyond the frame: ``-inf`` leaves them out.
    """
    height, width, channels = query.shape[1:]
    reach = range(2 * radius + 1)
    query = query / math.sqrt(channels)
    key = F.pad(key, (0, 0, radius, radius, radius, radius))  # (B, h+2r, w+2r, C)
    values = F.pad(values, (0, 0, radius, radius, radius, radius))
    scores = []
    for dy in reach:
        row = query @ key[:, dy : dy + height].transpose(
            2, 3
        )  # (B, h, w, w+2r): all of a row, of which a band counts
        scores += [row.diagonal(dx, dim1=2, dim2=3) for dx in reach]  # (B, h, w) each
    weights = torch.stack(scores)  # ((2r+1)^2, B, h, w)
    if beyond != 0:
        inside = F.pad(query.new_ones(height, width, dtype=torch.bool), (radius, radius, radius, radius))
        inside = torch.stack([inside[dy : dy + height, dx : dx + width] for dy in reach for dx in reach])
        weights.masked_fill_(~inside[:, None], beyond)
    weights = weights.softmax(dim=0)
    mixed = torch.zeros_like(values[:, :height, :width])
    for number, weight in enumerate(weights):
        dy, dx = divmod(number, len(reach))
        mixed += weight[..., None] * values[:, dy : dy + height, dx : dx + width]
    return mixed


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Features where the flow leads, bilinear, zero beyond the frame.

    Args:
        features: (B, h, w, C).
        flow: (B, h, w, 2) float32 in cells.

    Returns:
        (B, h, w, C).
    """
    height, width = features.shape[1:3]
    extent = flow.new_tensor([max(1, width - 1), max(1, height - 1)])
    grid = 2 * (places_like(flow) + flow) / extent - 1
    warped = F.grid_sample(features.permute(0, 3, 1, 2).float(), grid, align_corners=True)  # (B, C, h, w)
    return warped.permute(0, 2, 3, 1).to(features.dtype)


def places_like(cells: Tensor) -> Tensor:
    """The x and y of each cell of (B, h, w, C), (B, h, w, 2) float32."""
    batch, height, width = cells.shape[:3]
    y, x = torch.meshgrid(
        torch.arange(height, device=cells.device), torch.arange(width, device=cells.device), indexing="ij"
    )
    return torch.stack([x, y], dim=2).float().expand(batch, -1, -1, -1)
