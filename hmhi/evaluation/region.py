"""Region similarity J: the Jaccard index of two binary masks (Perazzi et al., CVPR 2016, section 5.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def jaccard(pred: Mask, truth: Mask) -> float:
    """Intersection over union; 1 where both masks are empty.

    Args:
        pred: (H, W) bool, True on the predicted object.
        truth: (H, W) bool, True on the object.

    Raises:
        ValueError: The masks differ in size or are not boolean.
    """
    check_masks(pred, truth)
    union = np.count_nonzero(pred | truth)
    return np.count_nonzero(pred & truth) / union if union else 1.0


def check_masks(pred: Mask, truth: Mask) -> None:
    """Refuse masks that no metric here is defined for.

    Raises:
        ValueError: The masks differ in size, hold no pixel, or are not (H, W) bool.
    """
    if pred.dtype != np.bool_ or truth.dtype != np.bool_ or pred.ndim != 2 or not pred.size:
        raise ValueError(
            f"masks must be non-empty (H, W) bool arrays, got {pred.dtype} {pred.shape} "
            f"and {truth.dtype} {truth.shape}"
        )
    if pred.shape != truth.shape:
        raise ValueError(f"prediction is {_size(pred)} pixels (height x width), truth is {_size(truth)}")


def _size(mask: Mask) -> str:
    return "x".join(map(str, mask.shape))
