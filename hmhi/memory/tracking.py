"""Where the cells of a memory are now, and the kernel around those places (HMMN, section 3.1, Eq. 2-3).

R rows (objects), h w cells of a grid, n = h*w, T slots, M = T*n memory cells, D channels of keys. A place is the
index of a cell, y * w + x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hmhi.memory.affinity import SCORES_AT_ONCE, Bias
from hmhi.memory.bank import MemoryBank


@dataclass(frozen=True)
class Kernel:
    """A Gaussian around the place where a memory cell is expected in the present frame.

    Note:
        `rule` and `track_twice` are by default as in the authors' release, not as in the paper: sigma is
        multiplied by 1 + factor * d, not added to, and the last motion step acts twice on older slots.
    """

    mode: Literal["local", "global", "none"] = "local"
    """Followed from frame to frame within a window; the best match in the whole frame (KMN); no kernel."""
    window: int = 7
    """Side of the window of one motion step, in cells; odd."""
    sigma: float = 3.0
    """Width for the newest slot, in cells."""
    factor: float = 0.5
    """Growth of the width with d, the number of slots between a slot and the newest."""
    rule: Literal["release", "paper"] = "release"
    """sigma * (1 + factor * d), or sigma + factor * d."""
    track_twice: bool = True
    """Centre the kernel of older slots one motion step beyond their place."""

    def width(self, d: int) -> float:
        """Sigma of the slot that lies d slots before the newest."""
        return self.sigma * (1 + self.factor * d) if self.rule == "release" else self.sigma + self.factor * d


@torch.no_grad()
def place_kernel(
    query: Tensor, bank: MemoryBank, grid: tuple[int, int], kernel: Kernel
) -> tuple[Bias, MemoryBank]:
    """The logarithm of the kernel for each memory cell, and the bank with its slots' places in this frame.

    Args:
        query: (R, n, D) or (1, n, D): keys of the present frame.
        bank: Has "key" (R, n, D) in each slot and, from the frame before, "track" (R, n) in all but the newest.
        grid: (h, w).
        kernel: Not of mode ``none``.
    """
    slots = bank.slots
    if kernel.mode == "global":
        centres = [best_places(query, slot.tensors["key"]) for slot in slots]  # (R, n) each
        widths = [kernel.sigma] * len(slots)
    else:
        step = motion_step(query, slots[-1].tensors["key"], grid, kernel.window)  # (R, n)
        tracks = [step.gather(1, slot.tensors["track"]) for slot in slots[:-1]]  # (R, n) each
        centres = [*(step.gather(1, track) if kernel.track_twice else track for track in tracks), step]
        widths = [kernel.width(len(slots) - 1 - i) for i in range(len(slots))]
        bank = bank.with_tensor("track", [*tracks, step])
    biases = [log_kernel(centre, width, grid) for centre, width in zip(centres, widths, strict=True)]
    rows, columns = (torch.cat(parts, dim=-1) for parts in zip(*biases, strict=True))  # (R, h, M), (R, w, M)
    return (rows, columns), bank


def motion_step(query: Tensor, keys: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """The best match of each memory cell in the next frame, within a window around it.

    Args:
        query: (R, n, D) or (1, n, D), of the next frame.
        keys: (R, n, D), of the memory frame.
        grid: (h, w).
        window: Side of the window in cells; it is cut at the border.

    Returns:
        int64 (R, n) places; of equal matches the first in row-major order.
    """
    h, w = grid
    if window // 2 >= max(grid) - 1:  # all of the frame
        return best_places(query.float(), keys.float())
    there, here = query.float().unflatten(1, grid), keys.float().unflatten(1, grid)  # (R, h, w, D)
    place = torch.arange(h * w, device=keys.device).view(h, w)
    best = here.new_full(here.shape[:3], float("-inf"))  # (R, h, w)
    found = torch.zeros_like(best, dtype=torch.int64)
    up, left = (min(window // 2, side - 1) for side in grid)
    for dy in range(-up, up + 1):
        for dx in range(-left, left + 1):
            y, x = slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx))  # of memory cells
            to_y, to_x = slice(y.start + dy, y.stop + dy), slice(x.start + dx, x.stop + dx)
            score = (here[:, y, x] * there[:, to_y, to_x]).sum(-1)
            better = score > best[:, y, x]
            best[:, y, x] = torch.where(better, score, best[:, y, x])
            found[:, y, x] = torch.where(better, place[to_y, to_x], found[:, y, x])
    return found.flatten(1)  # (R, n)


def best_places(query: Tensor, keys: Tensor) -> Tensor:
    """The best match of each memory cell anywhere in the present frame: int64 (R, n), arguments as above."""
    lines = max(1, SCORES_AT_ONCE // (len(keys) * query.shape[1]))
    transposed = query.transpose(1, 2)  # (R, D, n)
    return torch.cat([(part @ transposed).argmax(-1) for part in keys.split(lines, dim=1)], dim=1)  # (R, n)


def log_kernel(centres: Tensor, sigma: float, grid: tuple[int, int]) -> Bias:
    """Logarithm of a Gaussian around each centre (R, M), apart for rows (R, h, M) and columns (R, w, M)."""
    h, w = grid

    def fall(side: int, centre: Tensor) -> Tensor:
        position = torch.arange(side, device=centres.device, dtype=torch.float32)[:, None]  # (side, 1)
        return (position - centre[:, None]).square() / (-2.0 * sigma**2)  # (R, side, M)

    return fall(h, centres // w), fall(w, centres % w)
