"""From decoded frames to network inputs, and the random changes of training clips.

Images and flow pictures pass through `resize_rgb`, masks through `resize_mask`; only the first one
interpolates, and neither accepts what belongs to the other. Clips with objects pass through `ObjectAugmentation`,
with one function for images and one for labels. Sizes are (height, width).
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

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's, which is 0 after normalisation."""


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


@dataclass(frozen=True)
class ObjectAugmentation:
    """One draw of the changes of a frame with objects: the frame is bent, a window of it resized, then mirrored.

    `image` interpolates and fills with ImageNet's mean colour, `labels` takes nearest pixels and fills with 0.
    """

    window: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels of the source."""
    size: tuple[int, int]
    """Height and width of the result."""
    affine: tuple[float, ...] | None = None
    """Six numbers, row by row, that take a pixel of the result to one of the source; None bends nothing."""
    flip: bool = False
    photometric: Photometric = Photometric()
    jitter: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of brightness, contrast and saturation."""
    grey: bool = False

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """Change an (H, W, 3) uint8 image to (height, width, 3)."""
        if self.affine is not None:
            rgb = _bend(rgb, self.affine, cv2.INTER_LINEAR, MEAN_COLOUR)
        height, width = self.size
        picture = Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, box=self.window)
        rgb = np.array(picture)
        if self.flip:
            rgb = rgb[:, ::-1].copy()
        return _jitter(self.photometric(rgb), self.jitter, self.grey)

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Change an (H, W) uint8 label map to (height, width)."""
        if self.affine is not None:
            labels = _bend(labels, self.affine, cv2.INTER_NEAREST, (0,))
        height, width = self.size
        picture = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST, box=self.window)
        return np.array(picture)[:, ::-1] if self.flip else np.array(picture)


def draw_object_augmentations(
    config: AugmentConfig,
    source: tuple[int, int],
    size: tuple[int, int],
    frames: int,
    rng: np.random.Generator,
) -> list[ObjectAugmentation]:
    """Draw the changes of a clip: window, mirror and colours once for all frames, bending anew for each.

    `config.frame_jitter` changes colours anew for each frame, on top.

    Args:
        config: What is drawn, and how far.
        source: Height and width of the frames.
        size: Height and width of the result.
        frames: Frames of the clip.
        rng: Source of every draw.
    """
    window = _draw_window(config.crop, source, size, rng)
    flip = bool(rng.random() < config.flip)
    photometric = draw_photometric(rng) if config.photometric else Photometric()
    of_clip = rng.uniform(-1, 1, 3) * (config.jitter or (0, 0, 0)) + 1
    grey = bool(rng.random() < config.grey)
    bends = any((config.rotation, config.shear, config.zoom, config.shift))
    affines = [_draw_affine(config, source, rng) if bends else None for _ in range(frames)]
    of_frames = np.ones((frames, 3))
    if config.frame_jitter:
        of_frames += rng.uniform(-1, 1, (frames, 3)) * config.frame_jitter
    return [
        ObjectAugmentation(
            window, size, affine, flip, photometric, tuple((of_clip * of_frame).tolist()), grey
        )
        for affine, of_frame in zip(affines, of_frames, strict=True)
    ]


def _draw_window(
    crop: str, source: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is resized."""
    height, width = source
    if crop == "none":
        return 0.0, 0.0, float(width), float(height)
    if crop == "area":
        area = rng.uniform(0.36, 1.0) * height * width
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        tall, wide = np.sqrt(area / aspect), np.sqrt(area * aspect)
    else:
        fit = max(size[0] / height, size[1] / width)  # scale at which the result just fits into the frame
        scale = fit if fit >= 1 else rng.uniform(fit, 1.0)
        tall, wide = size[0] / scale, size[1] / scale
    tall, wide = min(tall, height), min(wide, width)
    top, left = rng.uniform(0, height - tall), rng.uniform(0, width - wide)
    return float(left), float(top), float(left + wide), float(top + tall)


def _draw_affine(
    config: AugmentConfig, source: tuple[int, int], rng: np.random.Generator
) -> tuple[float, ...]:
    """Rotation, shear, scale and shift about the middle of the frame, from result to source."""
    angle, shear = np.deg2rad(rng.uniform(-1, 1, 2) * (config.rotation, config.shear))
    scale = rng.uniform(1 - config.zoom, 1 + config.zoom)
    shift = rng.uniform(-config.shift, config.shift, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.linalg.inv(turn @ [[1, np.tan(shear)], [0, 1]] * scale)
    middle = (np.array(source[::-1]) - 1) / 2
    offset = middle - matrix @ (middle + shift)
    return tuple(np.column_stack([matrix, offset]).ravel().tolist())


def _bend(picture: np.ndarray, affine: tuple[float, ...], flags: int, fill: tuple[int, ...]) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.warpAffine(
        picture, np.reshape(affine, (2, 3)), (width, height), flags=flags | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT, borderValue=fill,
    )  # fmt: skip


def _jitter(rgb: np.ndarray, factors: tuple[float, float, float], grey: bool) -> np.ndarray:
    """Scale brightness, contrast about the mean grey, and saturation about each pixel's grey."""
    brightness, contrast, saturation = factors
    if grey:
        saturation = 0.0
    if (brightness, contrast, saturation) == (1.0, 1.0, 1.0):
        return rgb
    rgb = _linear(rgb, brightness, 0.0)
    mean = float(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).mean())
    rgb = _linear(rgb, contrast, (1 - contrast) * mean)
    alike = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(rgb, saturation, alike, 1 - saturation, 0)


def _maybe(rng: np.random.Generator, low: float, high: float) -> float | None:
    return float(rng.uniform(low, high)) if rng.integers(2) else None


def _linear(rgb: np.ndarray, factor: float, offset: float) -> np.ndarray:
    table = (np.arange(256) * factor + offset).clip(0, 255).astype(np.uint8)
    return cv2.LUT(rgb, table)
