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


def mean_absolute_error(prob: NDArray[np.uint8], truth: Mask) -> float:
    """MAE of a (H, W) uint8 map, stretched to the full range, and a (H, W) bool mask."""
    return float(np.abs(stretched(prob) - truth).mean())


def f_and_e_curves(prob: NDArray[np.uint8], truth: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F-measure and E-measure at the thresholds 0, 1, ... 255, one pass over the image for each."""
    levels = (stretched(prob) * 255).astype(np.uint8)
    f_curve, e_curve = np.zeros(256), np.zeros(256)
    for threshold in range(256):
        positive = levels >= threshold
        true_positive = np.logical_and(positive, truth).sum()
        if true_positive:
            precision, recall = true_positive / positive.sum(), true_positive / truth.sum()
            f_curve[threshold] = 1.3 * precision * recall / (0.3 * precision + recall)
        e_curve[threshold] = e_measure(positive, truth)
    return f_curve, e_curve


def e_measure(positive: Mask, truth: Mask) -> float:
    """E-measure of one binary map, with the toolbox's special cases for an empty and a full truth."""
    if not truth.any():
        enhanced = ~positive
    elif truth.all():
        enhanced = positive
    else:
        a, b = positive - positive.mean(), truth - truth.mean()
        alignment = 2 * a * b / (a * a + b * b + np.finfo(np.float64).eps)
        enhanced = (alignment + 1) ** 2 / 4
    return float(enhanced.sum() / max(truth.size - 1, 1))


def stretched(prob: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The map between 0 and 1; a constant map keeps its value."""
    values = prob / 255
    low, high = values.min(), values.max()
    return values if low == high else (values - low) / (high - low)
