"""From decoded frames to network inputs, and the random changes of training clips.

Images and flow pictures pass through `resize_rgb`, masks through `resize_mask`; only the first one
interpolates, and neither accepts what belongs to the other. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from hmhi.config import AugmentConfig
from hmhi.flow.codec import mirror_rgb
from hmhi.flow.compensate import compensate_picture
from hmhi.layers.normalize import Normalize


def to_input(rgb: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """Resize a picture with antialiased bilinear interpolation, as Pillow and the release do.

    Args:
        rgb: (H, W, 3) uint8.
        size: Height and width of the result; the aspect ratio is not kept.

    Returns:
        (3, height, width) uint8.
    """
    return to_chw(resize_rgb(rgb, size))


def resize_rgb(rgb: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """As `to_input`, but (height, width, 3) and still an array."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected a (H, W, 3) uint8 picture, got {rgb.dtype} {rgb.shape}")
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


def resize_flow(rgb: np.ndarray, size: Sequence[int], compensation: str) -> np.ndarray:
    """As `resize_rgb`, for a flow picture; then takes the camera's motion out of it.

    Args:
        rgb: (H, W, 3) uint8, colour wheel.
        size: Height and width of the result.
        compensation: Method of `hmhi.flow.compensate.compensate_camera`.
    """
    return compensate_picture(resize_rgb(rgb, size), compensation)


def to_chw(rgb: np.ndarray) -> torch.Tensor:
    """(H, W, 3) array to (3, H, W) tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize a mask by nearest neighbour, so that it stays {0, 1}.

    Args:
        mask: (H, W) uint8 in {0, 1}.
        size: Height and width of the result.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"expected a (H, W) uint8 mask, got {mask.dtype} {mask.shape}")
    height, width = size
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def normalize(x_uint8: torch.Tensor) -> torch.Tensor:
    """Scale by ImageNet's mean and deviation, on the device where the input lies.

    Args:
        x_uint8: (..., 3, H, W) uint8, RGB.

    Returns:
        Float32 of the same shape.
    """
    return Normalize().to(x_uint8.device)(x_uint8)


@dataclass(frozen=True)
class Photometric:
    """One draw of colour changes; None leaves a property as it is."""

    brightness: float | None = None
    """Added to every channel, -32 to 32."""
    contrast: float | None = None
    """Factor of every channel, 0.5 to 1.5."""
    contrast_first: bool = True
    """Whether contrast comes before saturation and hue."""
    saturation: float | None = None
    """Factor of HSV saturation, 0.5 to 1.5."""
    hue: int | None = None
    """Added to OpenCV's 8-bit hue (half degrees), -18 to 17."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Change an (H, W, 3) uint8 picture; values are clipped to 0-255 after each step."""
        if self.brightness is not None:
            rgb = _linear(rgb, 1.0, self.brightness)
        if self.contrast is not None and self.contrast_first:
            rgb = _linear(rgb, self.contrast, 0.0)
        if self.saturation is not None or self.hue is not None:
            rgb = self._change_colour(rgb)
        if self.contrast is not None and not self.contrast_first:
            rgb = _linear(rgb, self.contrast, 0.0)
        return rgb

    def _change_colour(self, rgb: np.ndarray) -> np.ndarray:
        levels = np.arange(256)
        hue = (levels + self.hue) % 180 if self.hue is not None else levels
        saturation = levels * self.saturation if self.saturation is not None else levels
        table = np.stack([hue, saturation.clip(0, 255), levels], axis=1).astype(np.uint8)
        hsv = cv2.LUT(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), table[None])
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw_photometric(rng: np.random.Generator) -> Photometric:
    """Draw colour changes, each with chance one half, in the ranges that the release uses."""
    return Photometric(
        brightness=_maybe(rng, -32.0, 32.0),
        contrast=_maybe(rng, 0.5, 1.5),
        contrast_first=bool(rng.integers(2)),
        saturation=_maybe(rng, 0.5, 1.5),
        hue=int(rng.integers(-18, 18)) if rng.integers(2) else None,
    )


@dataclass(frozen=True)
class Augmentation:
    """One draw of the changes of a frame, or of a whole clip."""

    flip: bool = False
    recolour: bool = True
    """Whether a mirrored flow picture takes the colours of the mirrored motion."""
    photometric: Photometric = Photometric()

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """Change an (H, W, 3) uint8 image."""
        return self.photometric(rgb[:, ::-1].copy() if self.flip else rgb)

    def flow(self, rgb: np.ndarray) -> np.ndarray:
        """Change an (H, W, 3) uint8 flow picture; its colours mean motion, so they get no colour change."""
        if not self.flip:
            return rgb
        return mirror_rgb(rgb) if self.recolour else rgb[:, ::-1]

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Change an (H, W) mask."""
        return mask[:, ::-1] if self.flip else mask


def draw_augmentations(config: AugmentConfig, frames: int, rng: np.random.Generator) -> list[Augmentation]:
    """Draw the changes of each frame of a clip: the same for all, or anew for each one (``config.per``)."""
    draws = [_draw(config, rng) for _ in range(frames if config.per == "frame" else 1)]
    return draws if config.per == "frame" else draws * frames


def _draw(config: AugmentConfig, rng: np.random.Generator) -> Augmentation:
    flip = bool(rng.random() < config.flip)
    photometric = draw_photometric(rng) if config.photometric else Photometric()
    return Augmentation(flip, config.flow_flip == "recolour", photometric)


def _maybe(rng: np.random.Generator, low: float, high: float) -> float | None:
    return float(rng.uniform(low, high)) if rng.integers(2) else None


def _linear(rgb: np.ndarray, factor: float, offset: float) -> np.ndarray:
    table = (np.arange(256) * factor + offset).clip(0, 255).astype(np.uint8)
    return cv2.LUT(rgb, table)
