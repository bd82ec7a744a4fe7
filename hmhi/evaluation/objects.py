"""J and F of several objects at once, on arrays: what validation and the protocols for objects share.

Letters: K objects, T scored frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.region import Mask, check_masks, jaccard

Floats = NDArray[np.float64]


def split_labels(labels: NDArray[np.uint8], ids: Sequence[int]) -> Mask:
    """One mask for each object.

    Args:
        labels: (H, W) uint8 object ids, 0 on the background.
        ids: The K objects. An id that does not occur gives an empty mask.

    Returns:
        (K, H, W) bool.
    """
    return labels == np.asarray(ids, np.uint8)[:, None, None]


def score_objects(pred: Mask, truth: Mask, void: Mask | None = None) -> Floats:
    """J and F of each object in one frame.

    Args:
        pred: (K, H, W) bool, or (H, W) for one object.
        truth: The same shape, bool.
        void: (H, W) bool, True where nothing is scored. As in the DAVIS toolkit, both masks are cleared there, before
            their contours are taken.

    Returns:
        (K, 2) float64: J and F, each 0-1. Both are 1 where an object is in neither mask, and J is 0 where it is in
        one only.

    Raises:
        ValueError: The masks differ in shape or are not boolean.
    """
    if pred.ndim == 2:
        pred, truth = pred[None], truth[None]  # (1, H, W)
    if pred.ndim != 3 or pred.shape != truth.shape:
        raise ValueError(f"masks must be (K, H, W) or (H, W) and alike, got {pred.shape} and {truth.shape}")
    if void is not None:
        check_masks(void, void)
        pred, truth = pred & ~void, truth & ~void  # (K, H, W)
    scores = [(jaccard(*pair), f_measure(*pair)) for pair in zip(pred, truth, strict=True)]
    return np.asarray(scores, np.float64).reshape(-1, 2)  # (K, 2)


def mean_of_frames(scores: Sequence[Floats]) -> Floats:
    """Mean J and F of each object over its frames.

    Args:
        scores: T results of `score_objects` with the same K objects; NaN in frames where an object does not count.

    Returns:
        (K, 2) float64; NaN for an object that counts in no frame.
    """
    stacked = np.stack(scores)  # (T, K, 2)
    counted = ~np.isnan(stacked)
    totals = np.where(counted, stacked, 0).sum(axis=0)  # (K, 2)
    with np.errstate(invalid="ignore"):
        return np.asarray(totals / counted.sum(axis=0), np.float64)


def mean_of_objects(means: Sequence[Floats]) -> tuple[float, float]:
    """J and F over all objects of all videos alike, as DAVIS 2017 takes them: not over videos.

    Args:
        means: (K, 2) of each video, from `mean_of_frames`; NaN rows are left out.

    Raises:
        ValueError: No object counts.
    """
    rows = np.concatenate([np.reshape(rows, (-1, 2)) for rows in means])  # (objects of all videos, 2)
    rows = rows[~np.isnan(rows).any(axis=1)]
    if not len(rows):
        raise ValueError("no object to take a mean of")
    j, f = rows.mean(axis=0)
    return float(j), float(f)
