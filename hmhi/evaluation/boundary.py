"""Boundary accuracy F: how well two masks' contours meet (Perazzi et al., CVPR 2016, section 5.1)."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hmhi.evaluation.region import Mask, check_masks


def f_measure(pred: Mask, truth: Mask, tolerance: float = 0.008) -> float:
    """Harmonic mean of contour precision and recall.

    A contour pixel counts as met when the other contour passes within ceil(tolerance * diagonal) pixels of
    it. The border of the image is no contour, so an empty and a full mask have none. With no contour on
    either side F is 1; with a contour on one side only it is 0.

    Args:
        pred: (H, W) bool, True on the predicted object.
        truth: (H, W) bool, True on the object.
        tolerance: Largest distance of two matching contour pixels, as a share of the image's diagonal.

    Raises:
        ValueError: The masks differ in size or are not boolean.
    """
    check_masks(pred, truth)
    radius = math.ceil(tolerance * float(np.linalg.norm(pred.shape)))
    window = _object_window(pred | truth)
    pred_contour, truth_contour = contour(pred[window]), contour(truth[window])
    pred_length, truth_length = np.count_nonzero(pred_contour), np.count_nonzero(truth_contour)
    if not pred_length or not truth_length:
        return float(pred_length == truth_length)
    precision = np.count_nonzero(pred_contour & _dilate(truth_contour, radius)) / pred_length
    recall = np.count_nonzero(truth_contour & _dilate(pred_contour, radius)) / truth_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: Mask) -> Mask:
    """Pixels whose right, lower or lower-right neighbour lies on the other side of the object's edge.

    One pixel wide, as in the DAVIS toolkit: the last row looks to the right only, the last column down only.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool.
    """
    edges = np.zeros_like(mask)
    edges[:-1] = mask[:-1] != mask[1:]
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edges


def _object_window(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the object with one pixel around it, which hold every contour pixel."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _dilate(mask: Mask, radius: int) -> Mask:
    return cv2.dilate(mask.view(np.uint8), _disk(radius)).view(np.bool_)


@lru_cache(maxsize=16)
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)
