"""Segmentation by flow alone: trivial methods that a trained network has to beat."""

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


def follow_mask(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Carry a mask to the next frame.

    Args:
        mask: (H, W) float32 in [0, 1] of a frame.
        flow: (H, W, 2) float32 from the next frame back to that one, in pixels.

    Returns:
        (H, W) float32: the mask read bilinearly where each pixel came from, 0 beyond the border.
    """
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in mask.shape[::-1]))  # (H, W)
    return cv2.remap(mask, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderValue=0.0)
