"""Edges that fit: probabilities follow the edges of the frame by a guided filter with a colour guide.

K. He, J. Sun, X. Tang, "Guided Image Filtering", TPAMI 2013, section 3.5; its fast form is K. He, J. Sun, "Fast
Guided Filter", arXiv 1505.00996.

H W pixels of the frame, h w pixels at which the coefficients are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

_REACH = 4.8  # pixels of the network's input: a radius of 16 for 192 x 192 and frames of 854 x 480
_WORTH = 2.0
EPS = 1e-4
"""Regularisation, in squared intensities of a guide in [0, 1]: a flatter edge is not followed."""


def refines(setting: str, frame_size: Sequence[int], input_size: Sequence[int]) -> bool:
    """Whether a frame's probabilities are refined, for a value of ``infer.refine``.

    ``auto`` refines what the network saw at half the frame's scale or less. Sharper maps lose by it (docs/LOG.md).

    Args:
        setting: ``none``, ``auto`` or ``guided``.
        frame_size: H and W.
        input_size: Height and width of the network's input.
    """
    return setting == "guided" or (setting == "auto" and _scale(frame_size, input_size) >= _WORTH)


def refine_edges(frame: np.ndarray, prob: np.ndarray, input_size: Sequence[int]) -> np.ndarray:
    """Let probabilities follow the edges of their frame, within about 5 pixels of the network's input.

    Args:
        frame: (H, W, 3) uint8 RGB.
        prob: (H, W) float32 in [0, 1].
        input_size: Height and width of the network's input.

    Returns:
        (H, W) float32 in [0, 1].
    """
    radius = max(1, round(_REACH * _scale(prob.shape, input_size)))
    subsample = max(1, radius // 4)  # of which the fast filter's paper says that no difference shows
    return guided_filter(frame, prob, radius, subsample=subsample).clip(0, 1)


def _scale(frame_size: Sequence[int], input_size: Sequence[int]) -> float:
    """Pixels of the frame for one of the network's input, along a side."""
    return math.sqrt(math.prod(frame_size) / math.prod(input_size))


def guided_filter(
    guide: np.ndarray, target: np.ndarray, radius: int, eps: float = EPS, *, subsample: int = 1
) -> np.ndarray:
    """Filter a picture so that its edges become those of a colour guide (Eq. 14-16 with Eq. 8).

    Windows are cut off where the picture ends.

    Args:
        guide: (H, W, 3) uint8.
        target: (H, W) float32.
        radius: Of the square windows, in pixels; their side is 2 * radius + 1.
        eps: See `EPS`.
        subsample: Compute the coefficients at 1 / subsample of height and width; 1 is the exact filter.

    Returns:
        (H, W) float32. Values may leave the range of `target` a little.
    """
    height, width = target.shape
    size = max(1, round(width / subsample)), max(1, round(height / subsample))
    side = 2 * max(1, round(radius / subsample)) + 1
    image = cv2.split(cv2.resize(guide, dsize=size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255)
    p = cv2.resize(target, dsize=size, interpolation=cv2.INTER_AREA)  # (h, w)
    count = _box_sum(np.ones_like(p), side)

    def mean(x: np.ndarray) -> np.ndarray:
        return _box_sum(x, side) / count

    r, g, b = (mean(channel) for channel in image)
    mean_p = mean(p)
    covariance = {
        (i, j): mean(image[i] * image[j]) - (r, g, b)[i] * (r, g, b)[j] + (eps if i == j else 0)
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    }
    slope = _solve(covariance, [mean(image[i] * p) - (r, g, b)[i] * mean_p for i in range(3)])  # Eq. 14
    offset = mean_p - slope[0] * r - slope[1] * g - slope[2] * b  # Eq. 15

    *slopes, result = (
        cv2.resize(mean(x), dsize=(width, height), interpolation=cv2.INTER_LINEAR) for x in (*slope, offset)
    )
    for share, channel in zip(slopes, cv2.split(guide), strict=True):  # Eq. 16
        np.add(result, share * channel * np.float32(1 / 255), out=result)
    return result


def _box_sum(x: np.ndarray, side: int) -> np.ndarray:
    """Sum of the windows around each pixel, nothing beyond the border."""
    return cv2.boxFilter(x, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)


def _solve(m: dict[tuple[int, int], np.ndarray], v: list[np.ndarray]) -> list[np.ndarray]:
    """Solve a symmetric 3 x 3 system at each pixel by its adjugate; `m` holds the upper triangle."""
    rr, rg, rb, gg, gb, bb = (m[key] for key in sorted(m))
    c00, c01, c02 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c11, c12, c22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c00 + rg * c01 + rb * c02
    rows = ((c00, c01, c02), (c01, c11, c12), (c02, c12, c22))
    return [(x * v[0] + y * v[1] + z * v[2]) / determinant for x, y, z in rows]
