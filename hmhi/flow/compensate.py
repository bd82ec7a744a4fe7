"""Taking the camera's motion out of optical flow, and joining both directions of time."""

from __future__ import annotations

import math

import cv2
import numpy as np

from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb, rgb_to_flow

COMPENSATIONS = ("none", "median", "affine", "homography")
_POINTS = 4000  # of the grid that a motion model is fitted to
_TOLERANCE = (
    0.1  # inlier distance relative to the frame's largest magnitude; .08 to .16 measured alike on DAVIS
)


def compensate_camera(flow: np.ndarray, method: str = "homography") -> np.ndarray:
    """Subtract the motion that most of the frame shares.

    The motion model is fitted by RANSAC, so that what moves by itself is left. The result is motion relative
    to the world where the scene is one plane, or the camera only turns and zooms; parallax stays.

    Args:
        flow: (H, W, 2) float32, in pixels or any other unit.
        method: ``none``, ``median`` (one translation), ``affine`` or ``homography``.

    Returns:
        (H, W, 2) float32 in the unit of `flow`.

    Raises:
        UserError: Unknown method.
    """
    if method not in COMPENSATIONS:
        raise UserError(f"unknown camera compensation {method!r}; choose one of {', '.join(COMPENSATIONS)}")
    largest = math.sqrt(float(_squared_length(flow).max(initial=0.0)))
    if method == "none" or largest == 0:
        return flow
    if method == "median":
        return flow - np.median(flow, axis=(0, 1)).astype(np.float32)
    height, width = flow.shape[:2]
    step = max(1, round(np.sqrt(height * width / _POINTS)))
    y, x = (axis.ravel() for axis in np.mgrid[step // 2 : height : step, step // 2 : width : step])
    before = np.stack([x, y], axis=1).astype(np.float32)
    after = before + flow[y, x]
    tolerance = _TOLERANCE * largest
    if method == "affine":
        rows, _ = cv2.estimateAffine2D(before, after, method=cv2.RANSAC, ransacReprojThreshold=tolerance)
        model = None if rows is None else np.vstack([rows, [0, 0, 1]])
    else:
        model, _ = cv2.findHomography(before, after, method=cv2.RANSAC, ransacReprojThreshold=tolerance)
    return flow if model is None else flow - _model_flow(model, height, width)


def compensate_picture(rgb: np.ndarray, method: str) -> np.ndarray:
    """`compensate_camera` on a flow picture, whose colours are normalised anew; (H, W, 3) uint8 each."""
    return rgb if method == "none" else flow_to_rgb(compensate_camera(rgb_to_flow(rgb), method))


def join_directions(forward: np.ndarray | None, backward: np.ndarray | None, method: str) -> np.ndarray:
    """Motion relative to the camera from both neighbours of a frame: at each pixel the smaller of the two.

    What stands still beside a moving thing is covered by it in one of the neighbours, where an estimator can only
    guess, and mostly guesses that it moves along; the other neighbour shows it. What moves by itself does so
    towards both.

    Args:
        forward: (H, W, 2) float32 flow from the frame to the next one; None after the last one.
        backward: (H, W, 2) float32 flow from the same frame to the previous one; None before the first one.
        method: How the camera's motion is taken out of each, see `compensate_camera`.

    Returns:
        (H, W, 2) float32 in the direction and unit of `forward`.

    Raises:
        ValueError: Neither.
        UserError: Unknown method.
    """
    ahead = None if forward is None else compensate_camera(forward, method)
    behind = None if backward is None else compensate_camera(-backward, method)
    if behind is None:
        if ahead is None:
            raise ValueError("a frame without neighbours shows no motion")
        return ahead
    if ahead is None:
        return behind
    smaller = _squared_length(behind) < _squared_length(ahead)
    return np.where(smaller[..., None], behind, ahead)


def _squared_length(flow: np.ndarray) -> np.ndarray:
    """(H, W); several times faster than a sum over the last axis."""
    x, y = flow[..., 0], flow[..., 1]
    return x * x + y * y


def _model_flow(model: np.ndarray, height: int, width: int) -> np.ndarray:
    """The flow (H, W, 2) float32 that a homography makes of a whole frame."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    m = model.astype(np.float32)
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    moved_x = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / depth
    moved_y = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / depth
    return np.stack([moved_x - x, moved_y - y], axis=2)
