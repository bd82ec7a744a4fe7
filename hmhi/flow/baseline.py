"""Segmentation by flow alone: the trivial method that a trained network has to beat."""

from __future__ import annotations

import cv2
import numpy as np

from hmhi.flow.codec import rgb_to_flow
from hmhi.flow.compensate import compensate_camera


def threshold_flow(flow: np.ndarray, compensation: str = "homography") -> np.ndarray:
    """Call foreground what moves unlike the camera: Otsu's threshold on the length of the compensated flow.

    Args:
        flow: (H, W, 2) flow, or its (H, W, 3) uint8 picture on the colour wheel.
        compensation: Method of `hmhi.flow.compensate.compensate_camera`.

    Returns:
        (H, W) uint8 in {0, 1}.
    """
    if flow.shape[-1] == 3:
        flow = rgb_to_flow(flow)
    length = np.sqrt(np.square(compensate_camera(flow, compensation)).sum(axis=2))
    levels = (length * (255 / max(float(length.max()), 1e-12))).astype(np.uint8)
    _, mask = cv2.threshold(levels, thresh=0, maxval=1, type=cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return mask
