"""YOLO segmentation: one text file a frame, one polygon an object, points relative to the frame's size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from hmhi.exports.objects import masks_of
from hmhi.exports.run import LabelVideo


def write_yolo(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``labels/train/<video>/<frame>.txt`` with lines ``0 x1 y1 x2 y2 ...``, and ``data.yaml``."""
    for video in videos:
        place = folder / "labels" / "train" / video.name
        place.mkdir(parents=True)
        for stem, labels in video:
            size = np.array([labels.shape[1], labels.shape[0]])
            lines = []
            for _, mask in masks_of(labels):
                points = (mask_to_polygon(mask) + 0.5) / size  # centres of pixels; (N, 2)
                lines.append("0 " + " ".join(f"{value:.6f}" for value in points.ravel()))
            (place / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    name = json.dumps(category, ensure_ascii=False)  # quoted as YAML wants it, too
    (folder / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/train\nnames:\n  0: {name}\n", encoding="utf-8"
    )


def mask_to_polygon(mask: np.ndarray) -> np.ndarray:
    """One polygon along the outer pixels of a mask, to be filled by the even-odd rule.

    The format has one ring an object. Further parts and holes are therefore reached over bridges, which lead to
    the nearest point of the next ring and back, and have no area.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        (N, 2) int, x and y; N is at least 3.
    """
    rings, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    waiting = sorted((ring[:, 0] for ring in rings), key=len, reverse=True)
    polygon = waiting.pop(0)
    while waiting:
        gaps = [_nearest(polygon, ring) for ring in waiting]
        place = min(range(len(waiting)), key=lambda number: gaps[number][0])
        ring, (_, leave, arrive) = waiting.pop(place), gaps[place]
        turned = np.roll(ring, -arrive, axis=0)
        polygon = np.concatenate([polygon[: leave + 1], turned, turned[:1], polygon[leave:]])
    if len(polygon) < 3:  # a dot, or a line one pixel wide: readers refuse fewer points
        polygon = np.concatenate([polygon, np.repeat(polygon[-1:], 3 - len(polygon), axis=0)])
    return polygon


def _nearest(polygon: np.ndarray, ring: np.ndarray) -> tuple[float, int, int]:
    """Squared distance of the nearest two points, and their places."""
    gaps = ((polygon[:, None] - ring[None]) ** 2).sum(axis=2)  # (N, M)
    leave, arrive = np.unravel_index(int(gaps.argmin()), gaps.shape)
    return float(gaps[leave, arrive]), int(leave), int(arrive)
