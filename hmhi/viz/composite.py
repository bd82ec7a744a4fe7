"""The object on a background that is not its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from hmhi.errors import UserError
from hmhi.media.pictures import read_rgb

BLUR = "blur"
_RADIUS = 1 / 30  # standard deviation of the blur, in heights of the frame


class Background:
    """What is seen where the object is not.

    Args:
        text: ``blur``, the path of an image, or a colour such as ``white`` or ``#00ff00``.

    Raises:
        UserError: None of these.
        BadFileError: The image cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._picture: np.ndarray | None = None
        self._fitted: np.ndarray | None = None
        if text == BLUR:
            return
        if Path(text).is_file():
            self._picture = read_rgb(Path(text))
            return
        try:
            colour = ImageColor.getrgb(text)[:3]
        except ValueError:
            raise UserError(
                f"background {text!r} is neither '{BLUR}', nor an image file, nor a colour such as white or #00ff00"
            ) from None
        self._picture = np.array(colour, dtype=np.uint8).reshape(1, 1, 3)

    def draw(self, frame: np.ndarray, opacity: np.ndarray) -> np.ndarray:
        """Put the object of a frame before the background.

        Args:
            frame: (H, W, 3) uint8 RGB.
            opacity: (H, W) float in [0, 1] of the object.

        Returns:
            (H, W, 3) uint8.
        """
        part = opacity[..., None].astype(np.float32)
        behind = self._behind(frame, part)
        return np.rint(frame * part + behind * (1 - part)).astype(np.uint8)

    def _behind(self, frame: np.ndarray, part: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        if self._picture is None:
            return _blurred(frame, 1 - part)
        if self._fitted is None or self._fitted.shape != frame.shape:
            self._fitted = _cover(self._picture, height, width)
        return self._fitted


def _blurred(frame: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blur what is not the object, so that no halo of its colours surrounds it. `weight` is (H, W, 1) in [0, 1]."""
    spread = frame.shape[0] * _RADIUS
    weight = weight + 1e-3  # deep inside the object something must be there
    colours = cv2.GaussianBlur(frame * weight, (0, 0), spread)
    return colours / cv2.GaussianBlur(weight, (0, 0), spread)[..., None]


def _cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture to cover a size, and cut off what juts out."""
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width]
