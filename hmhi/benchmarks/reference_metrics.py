"""The metrics written the straightforward way, with scikit-image and one pass for each threshold.

Slow on purpose: the tests use these functions as an oracle, the benchmark as the thing to be faster than.
Definitions and edge cases are those of `hmhi.evaluation`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import dilation, disk

Mask = NDArray[np.bool_]


def jaccard(pred: Mask, truth: Mask) -> float:
    """J of two (H, W) bool masks."""
    union = np.logical_or(pred, truth).sum()
    return float(np.logical_and(pred, truth).sum() / union) if union else 1.0


def f_measure(pred: Mask, truth: Mask, tolerance: float = 0.008) -> float:
    """F of two (H, W) bool masks, by dilation of the whole contour images."""
    footprint = disk(math.ceil(tolerance * math.hypot(*pred.shape)))
    pred_contour, truth_contour = contour(pred), contour(truth)
    if not pred_contour.any() or not truth_contour.any():
        return float(pred_contour.any() == truth_contour.any())
    precision = (pred_contour & dilation(truth_contour, footprint)).sum() / pred_contour.sum()
    recall = (truth_contour & dilation(pred_contour, footprint)).sum() / truth_contour.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def contour(mask: Mask) -> Mask:
    """Contour of a (H, W) bool mask; the image is continued by its last row and column."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, down, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != down) | (mask != diagonal)
