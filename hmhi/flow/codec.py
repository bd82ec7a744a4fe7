"""Optical flow as colour pictures and as .flo files.

The colour wheel is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (ICCV
2007), with the columns that RAFT's and torchvision's visualisers use: hue is the direction, saturation the
magnitude relative to the largest one of the frame, and white is no motion.

Flow is (H, W, 2) float32 in pixels, x (to the right) first, then y (downward).
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from hmhi.errors import BadFileError
from hmhi.media.atomic import write_atomically
from hmhi.media.packs import read_bytes

_SEGMENTS = (15, 6, 4, 11, 13, 6)  # columns of red-yellow, -green, -cyan, -blue, -magenta, -red
_COLUMNS = sum(_SEGMENTS)
_CELLS = 1024  # of the colour table for each axis; keeps its error below one level
_HUE_STEPS = 16  # entries of the mirror table for each degree of hue
_FLO_MAGIC = b"PIEH"


def flow_to_rgb(flow: np.ndarray) -> np.ndarray:
    """Draw a flow field on the colour wheel, normalised by its own largest magnitude.

    Equals ``torchvision.utils.flow_to_image`` on the single frame to one level.

    Args:
        flow: (H, W, 2) in pixels (or any unit).

    Returns:
        (H, W, 3) uint8 RGB; a field of zeros is white.

    Raises:
        ValueError: Wrong shape, or a value is NaN or infinite.
    """
    _check(flow)
    largest = float(np.sqrt(np.square(flow, dtype=np.float64).sum(axis=2).max(initial=0.0)))
    scale = (
        _CELLS / 2 / (largest + np.finfo(np.float32).eps)
    )  # eps as in torchvision: rounding noise stays white
    cells = (flow * np.float32(scale) + np.float32(_CELLS / 2)).astype(np.int32)
    np.clip(cells, 0, _CELLS - 1, out=cells)
    return _colour_table()[cells[..., 1] * _CELLS + cells[..., 0]]


def rgb_to_flow(rgb: np.ndarray) -> np.ndarray:
    """Read a colour-wheel picture back; the inverse of `flow_to_rgb` up to the lost scale and rounding.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W, 2) float32 in units of the frame's largest magnitude, so about 0-1 long.

    Raises:
        ValueError: Not an (H, W, 3) uint8 array.
    """
    hue, saturation, value = cv2.split(_to_hsv(rgb))
    column = np.interp(hue, _column_hues(), np.arange(_COLUMNS, dtype=np.float32))
    angle = (column / (_COLUMNS - 1) * 2 - 1) * np.pi
    magnitude = saturation * value
    flow = np.stack([-np.cos(angle) * magnitude, -np.sin(angle) * magnitude], axis=2)
    return flow.astype(np.float32)


def mirror_rgb(rgb: np.ndarray) -> np.ndarray:
    """Mirror a colour-wheel picture left-right and recolour it for the negated x component.

    Drawing the mirrored flow and mirroring the drawn flow then agree; mirroring the pixels alone would turn
    motion to the right into motion to the right on the other side.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: Not an (H, W, 3) uint8 array.
    """
    hsv = _to_hsv(rgb[:, ::-1])
    hsv[..., 0] = _mirrored_hues()[(hsv[..., 0] * _HUE_STEPS + 0.5).astype(np.int32)]
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Write a Middlebury .flo file, atomically.

    Raises:
        ValueError: Wrong shape, or a value is NaN or infinite.
    """
    _check(flow)
    height, width = flow.shape[:2]
    header = _FLO_MAGIC + np.array([width, height], "<i4").tobytes()
    with write_atomically(path) as stream:
        stream.write(header + np.ascontiguousarray(flow, "<f4").tobytes())


def read_flo(path: str | Path) -> np.ndarray:
    """Read a Middlebury .flo file as (H, W, 2) float32.

    Raises:
        FileNotFoundError: The file does not exist.
        BadFileError: The file is no .flo file, or is truncated, or larger than `hmhi.media.files.MAX_BYTES`.
    """
    content = read_bytes(Path(path))
    if len(content) < 12 or content[:4] != _FLO_MAGIC:
        raise BadFileError(f"{path}: not a .flo file (it must start with 'PIEH')")
    width, height = (int(side) for side in np.frombuffer(content, "<i4", count=2, offset=4))
    expected = 12 + width * height * 8
    if min(width, height) < 1 or len(content) != expected:
        raise BadFileError(
            f"{path}: {len(content)} bytes where {width} x {height} flow needs {expected}; it is damaged"
        )
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def _check(flow: np.ndarray) -> None:
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must be of shape (H, W, 2), got {flow.shape}")
    if not np.isfinite(flow).all():
        bad = int(np.count_nonzero(~np.isfinite(flow).all(axis=2)))
        raise ValueError(f"flow is NaN or infinite at {bad} of {flow.shape[0] * flow.shape[1]} pixels")


def _to_hsv(rgb: np.ndarray) -> np.ndarray:
    """Hue 0-360, saturation and value 0-1, float32."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"flow colours must be (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)


@functools.cache
def _wheel() -> np.ndarray:
    """The (55, 3) fully saturated colours, 0-255."""
    wheel = np.zeros((_COLUMNS, 3))
    start = 0
    # Each segment keeps one channel full while another one rises or falls.
    for count, (full, moving, rises) in zip(
        _SEGMENTS,
        [(0, 1, True), (1, 0, False), (1, 2, True), (2, 1, False), (2, 0, True), (0, 2, False)],
        strict=True,
    ):
        ramp = np.floor(255 * np.arange(count) / count)
        wheel[start : start + count, full] = 255
        wheel[start : start + count, moving] = ramp if rises else 255 - ramp
        start += count
    return wheel


@functools.cache
def _colour_table() -> np.ndarray:
    """The (cells * cells, 3) uint8 colour of each cell of normalised flow; row y, column x.

    Cells meet at zero, so that no cell straddles the ray to the right, where the wheel's last column jumps
    to its first.
    """
    centres = (np.arange(_CELLS) + 0.5) * 2 / _CELLS - 1
    x, y = np.meshgrid(centres, centres)
    column = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (_COLUMNS - 1)
    low = np.floor(column).astype(int)
    share = (column - low)[..., None]
    saturated = (1 - share) * _wheel()[low] + share * _wheel()[(low + 1) % _COLUMNS]
    table = np.floor(255 - np.hypot(x, y)[..., None] * (255 - saturated)).clip(0, 255).astype(np.uint8)
    middle = slice(_CELLS // 2 - 1, _CELLS // 2 + 1)
    table[middle, middle] = 255  # no motion is exactly white
    return table.reshape(-1, 3)


@functools.cache
def _column_hues() -> np.ndarray:
    """Hue in degrees of each wheel column; hue is linear in between, which makes the wheel invertible."""
    hsv = cv2.cvtColor((_wheel()[None] / 255).astype(np.float32), cv2.COLOR_RGB2HSV)
    return hsv[0, :, 0]


@functools.cache
def _mirrored_hues() -> np.ndarray:
    """Hue of the negated x component, for each 1/16 degree of hue."""
    hues = np.arange(360 * _HUE_STEPS + 1) / _HUE_STEPS
    columns = np.arange(_COLUMNS, dtype=np.float64)
    turn = _COLUMNS - 1
    mirrored = (turn / 2 - np.interp(hues, _column_hues(), columns)) % turn
    return np.interp(mirrored, columns, _column_hues()).astype(np.float32)
