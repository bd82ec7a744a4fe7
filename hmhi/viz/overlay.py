"""Pictures of results: the mask drawn into the frame, the object cut out, and panels side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hmhi.media.masks import PALETTE

COLOUR = (230, 60, 40)  # RGB, of a mask without ids
OPACITY = 0.5


def draw_overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tint objects and outline them.

    Args:
        frame: (H, W, 3) uint8 RGB; left as it is.
        labels: (H, W) uint8 ids, 0 for background, each drawn in its colour of `hmhi.media.masks.PALETTE`; or one
            (H, W) bool mask, drawn in `COLOUR`.

    Returns:
        (H, W, 3) uint8.
    """
    out = frame.copy()
    if labels.dtype == bool:
        _tint(out, frame, labels, COLOUR)
        return out
    for object_id in np.unique(labels[labels > 0]).tolist():
        red, green, blue = PALETTE[3 * object_id : 3 * object_id + 3]
        _tint(out, frame, labels == object_id, (red, green, blue))
    return out


def _tint(out: np.ndarray, frame: np.ndarray, inside: np.ndarray, colour: tuple[int, int, int]) -> None:
    tint = frame[inside] * (1 - OPACITY) + np.array(colour) * OPACITY
    out[inside] = tint.astype(np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, colour, thickness=max(1, frame.shape[0] // 240))


def cut_out(frame: np.ndarray, prob: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Keep the object and make the rest transparent, with a soft edge.

    Opacity is half at the edge of the mask, and rises from 0 to 1 while the probability rises by 0.5 about the
    threshold.

    Args:
        frame: (H, W, 3) uint8 RGB.
        prob: (H, W) float in [0, 1].
        threshold: Probability at the edge of the mask.

    Returns:
        (H, W, 4) uint8 RGBA, not premultiplied; black where it is fully transparent.
    """
    levels = np.rint(opacity(prob, threshold) * 255).astype(np.uint8)
    return np.dstack([np.where(levels[..., None] > 0, frame, np.uint8(0)), levels])


def cut_out_for_video(frame: np.ndarray, prob: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Like `cut_out`, but colours go on a little beyond the edge, as codecs smear the colours of neighbours."""
    levels = np.rint(opacity(prob, threshold) * 255).astype(np.uint8)
    near = cv2.dilate((levels > 0).astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    return np.dstack([np.where(near[..., None], frame, np.uint8(0)), levels])


def opacity(prob: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Opacity of the object, (H, W) in [0, 1]: half at the edge of the mask, see `cut_out`."""
    return np.clip((prob - threshold) * 2 + 0.5, 0, 1)


def draw_strip(rows: Sequence[Sequence[np.ndarray]], height: int = 160) -> np.ndarray:
    """Lay panels out in rows, all brought to one height.

    Args:
        rows: Panels, (H, W, 3) uint8 RGB or (H, W) bool masks.
        height: Of every panel in pixels.

    Returns:
        (len(rows) * height, W, 3) uint8, rows padded with white to the widest.
    """
    drawn = [np.hstack([_panel(panel, height) for panel in row]) for row in rows]
    width = max(row.shape[1] for row in drawn)
    return np.vstack(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in drawn]
    )


def _panel(panel: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(panel.shape[1] * height / panel.shape[0]))
    if panel.ndim == 2:
        grey = cv2.resize(panel.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.repeat(grey[..., None], 3, axis=2)
    return cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA)
