"""Notice scene cuts, where memory and flow of what came before mean nothing."""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLD = 0.3
"""Share of pixels that must change colour. On 13 DAVIS sequences neighbouring frames differ by .16 at most, and
the last frame of one from the first of another by .39 at least."""
_SIDE = 96  # of the thumbnails compared
_BINS = (12, 4, 4)  # of hue, saturation and value


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether a new scene begins between two frames, by half the L1 distance of their HSV histograms.

    It sees hard cuts. A slow fade passes, a flash is taken for a cut, and so may be very fast motion when frames
    far apart are compared.

    Args:
        before: (H, W, 3) uint8 RGB.
        after: Of any size, alike.
    """
    distance = np.abs(_histogram(before) - _histogram(after)).sum() / 2
    return bool(distance > THRESHOLD)


def _histogram(rgb: np.ndarray) -> np.ndarray:
    """Share of pixels in each colour bin."""
    small = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(_BINS), [0, 180, 0, 256, 0, 256])
    return counts / counts.sum()
