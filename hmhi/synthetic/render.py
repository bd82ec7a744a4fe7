"""Painting one frame of a synthetic world from back to front, with its flow and its labels.

A surface is a flat picture in the world. A pixel p of the frame at time t meets it at plane coordinates
``q = outer(t)^-1 p``; waves move these to ``s = q + offset(q, t)``; the surface's canvas is read at
``inner(t)^-1 s``. Flow follows the same canvas point to time t + 1, so that it is exact under any of these
motions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from hmhi.synthetic.motion import Waves

Homography = Callable[[float], np.ndarray]
_LEVELS = 6  # of the picture pyramid of a tiled surface


def fixed(matrix: np.ndarray) -> Homography:
    """A homography that does not change over time."""
    return lambda t: matrix


@dataclass(frozen=True, eq=False)
class Surface:
    """Something to paint."""

    canvas: np.ndarray
    """(h, w, 3) uint8 RGB repeated without end, or (h, w, 4) with opacity and nothing beyond."""
    outer: Homography
    """Plane coordinates to pixels at a time; the third component is the depth."""
    inner: Homography
    """Canvas pixels to plane coordinates at a time, affine."""
    waves: Waves | None = None
    """Deformation of the plane."""
    label: int = 0
    """What the mask says where this surface is in front."""
    ghost: bool = False
    """Changes colours only (a shadow, smoke): flow and label stay those behind it."""

    @property
    def tiled(self) -> bool:
        """Whether the canvas repeats without end."""
        return self.canvas.shape[2] == 3

    @functools.cached_property
    def pyramid(self) -> list[np.ndarray]:
        """The canvas at falling resolutions, each half of the last."""
        levels = [self.canvas]
        while len(levels) < _LEVELS:
            height, width = levels[-1].shape[:2]
            half = (max(1, width // 2), max(1, height // 2))
            levels.append(cv2.resize(levels[-1], dsize=half, interpolation=cv2.INTER_AREA))
        return levels


@dataclass
class Painting:
    """A frame in progress."""

    image: np.ndarray
    """(H, W, 3) float32, 0-255."""
    flow: np.ndarray
    """(H, W, 2) float32 to the next frame, in pixels."""
    label: np.ndarray
    """(H, W) uint8."""


def paint(surfaces: list[Surface], t: float, size: tuple[int, int]) -> Painting:
    """Render surfaces, given from back to front, at time `t`."""
    height, width = size
    painting = Painting(
        np.zeros((height, width, 3), np.float32),
        np.zeros((height, width, 2), np.float32),
        np.zeros((height, width), np.uint8),
    )
    for surface in surfaces:
        _add(painting, surface, t)
    return painting


def apply(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map points by a homography; also returns the third component before the division."""
    m = matrix.astype(np.float32)
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    safe = np.where(np.abs(depth) < 1e-12, np.float32(1e-12), depth)
    return (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / safe, (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / safe, depth


def _add(painting: Painting, surface: Surface, t: float) -> None:
    outer, inner = surface.outer(t), surface.inner(t)
    region = _region(surface, outer, inner, painting.label.shape)
    if region is None:
        return
    rows, columns = region
    y, x = np.mgrid[rows, columns].astype(np.float32)
    outer_next, inner_next = surface.outer(t + 1), surface.inner(t + 1)
    if surface.waves is None:
        to_canvas = np.linalg.inv(outer @ inner)
        u, v, facing = apply(to_canvas, x, y)
        x_next, y_next, _ = apply(outer_next @ inner_next @ to_canvas, x, y)
    else:
        qx, qy, facing = apply(np.linalg.inv(outer), x, y)
        dx, dy = surface.waves.offset(qx, qy, t)
        u, v, _ = apply(np.linalg.inv(inner), qx + dx, qy + dy)
        sx, sy, _ = apply(inner_next @ np.linalg.inv(inner), qx + dx, qy + dy)
        x_next, y_next, _ = apply(outer_next, *surface.waves.invert(sx, sy, t + 1, guess=(qx, qy)))
    if surface.tiled:
        colours = _read_tiled(surface, u, v)
        opacity = np.ones_like(u)
    else:
        read = cv2.remap(
            surface.canvas, u, v,
            interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0,
        )  # fmt: skip
        colours, opacity = read[..., :3].astype(np.float32), read[..., 3].astype(np.float32) / 255
    opacity[facing <= 1e-6] = 0  # behind the camera, or above the horizon of a plane
    part = painting.image[region]
    part += (colours - part) * opacity[..., None]
    if not surface.ghost:
        front = opacity > 0.5
        painting.label[region][front] = surface.label
        flow = painting.flow[region]
        np.copyto(flow[..., 0], x_next - x, where=front)
        np.copyto(flow[..., 1], y_next - y, where=front)


def _region(
    surface: Surface, outer: np.ndarray, inner: np.ndarray, size: tuple[int, int]
) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that the surface can touch."""
    height, width = size
    if surface.tiled:
        toward_horizon = np.linalg.inv(outer)[2]
        ends = np.array([(0, row, 1) for row in range(height)] + [(width, row, 1) for row in range(height)])
        rows = np.flatnonzero((ends @ toward_horizon).reshape(2, height).max(axis=0) > 0)
        return (slice(rows[0], rows[-1] + 1), slice(0, width)) if len(rows) else None
    canvas_height, canvas_width = surface.canvas.shape[:2]
    corners = np.array([(0, 0), (canvas_width, 0), (canvas_width, canvas_height), (0, canvas_height)]).T
    plane = inner @ np.vstack([corners, np.ones(4)])
    if surface.waves is not None:
        reach = np.abs(surface.waves.directions).sum(axis=0)
        low, high = plane[:2].min(axis=1) - reach, plane[:2].max(axis=1) + reach
        plane = np.array(
            [(low[0], low[1], 1), (high[0], low[1], 1), (high[0], high[1], 1), (low[0], high[1], 1)]
        ).T
    pixels = outer @ plane
    if (pixels[2] <= 1e-3).any():
        return None  # reaches behind the camera
    pixels = pixels[:2] / pixels[2]
    left, top = np.floor(pixels.min(axis=1)).clip(-1, [width, height]).astype(int)
    right, bottom = np.ceil(pixels.max(axis=1)).clip(-1, [width, height]).astype(int) + 1
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, width), min(bottom, height)
    return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None


def _read_tiled(surface: Surface, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) float32 from the pyramid level that fits each row, so that distance does not flicker."""
    step = np.hypot(np.diff(u, axis=1), np.diff(v, axis=1)).mean(axis=1)
    deep = np.hypot(np.diff(u, axis=0, append=u[-1:]), np.diff(v, axis=0, append=v[-1:])).mean(axis=1)
    deep[-1] = deep[-2] if len(deep) > 1 else deep[-1]
    level = np.log2(np.maximum(np.sqrt(np.maximum(step * deep, 1e-9)), 1.0)).clip(0, _LEVELS - 1)
    colours = np.zeros((*u.shape, 3), np.float32)
    for k, canvas in enumerate(surface.pyramid):
        weight = np.clip(1 - np.abs(level - k), 0, 1).astype(np.float32)
        rows = np.flatnonzero(weight)
        if len(rows) == 0:
            continue
        band = slice(rows[0], rows[-1] + 1)
        height, width = canvas.shape[:2]
        shrink = surface.canvas.shape[0] / height
        # Wrapped by hand: remap holds coordinates in 16 bits.
        read = cv2.remap(
            canvas,
            np.mod((u[band] + 0.5) / np.float32(shrink) - 0.5, width),
            np.mod((v[band] + 0.5) / np.float32(shrink) - 0.5, height),
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        colours[band] += read * weight[band, None, None]
    return colours
