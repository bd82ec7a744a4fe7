"""Decode images from folders, zip files and video files; every fault becomes one error that names the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hmhi.errors import BadFileError
from hmhi.media.files import check_pixels
from hmhi.media.packs import VIDEO_FRAME, read_bytes
from hmhi.media.video_in import read_frame

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""What Pillow may decode. Some of its other formats start programs: PostScript, whatever its suffix, Ghostscript."""

SHAPE_TOLERANCE = 0.05
"""Relative difference in aspect ratio between an image and its flow map that is still taken for rounding."""


def read_rgb(path: Path) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3), as `to_rgb` does arrays.

    An EXIF orientation is not applied: the masks of data sets fit the pixels as they are stored. That of a
    video file is.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image of 8 or 16 bits a channel, or larger than `hmhi.media.files.MAX_PIXELS`.
    """
    if path.suffix == VIDEO_FRAME:
        return read_frame(path.parent, int(path.stem))
    image = decode(path)
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise BadFileError(f"{path}: image of mode {image.mode}; convert it to 8 or 16 bits a channel")
    return to_rgb(levels.astype(np.uint16))


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """Bring a picture into the one form that everything here reads, uint8 (H, W, 3).

    Grey is repeated, alpha is dropped, and 16 bits are scaled by 1/257, so that white stays white.

    Args:
        picture: uint8 or uint16, (H, W) or (H, W, C): grey (C = 1), grey and alpha, RGB, or RGB and alpha.

    Raises:
        ValueError: Another type or shape.
    """
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or picture.size == 0:
        raise ValueError(f"expected a picture of shape (H, W, 3), got {picture.shape}")
    if picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ValueError(f"expected a picture of type uint8 (0-255) or uint16, got {picture.dtype}")
    picture = picture.reshape(*picture.shape[:2], channels)
    if channels < 3:
        return np.repeat(picture[..., :1], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image from its header alone; of a video frame by decoding it.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not an image.
    """
    if path.suffix == VIDEO_FRAME:
        height, width = read_rgb(path).shape[:2]
        return height, width
    image = _open(path)
    return image.height, image.width


def decode(path: Path) -> Image.Image:
    """Decode an image file in the mode in which it is stored.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or larger than `hmhi.media.files.MAX_PIXELS`.
    """
    image = _open(path)
    try:
        image.load()
    except Exception as error:  # hostile bytes reach many error types inside Pillow's plugins
        raise BadFileError(f"{path}: damaged image ({error or type(error).__name__})") from None
    return image


def _open(path: Path) -> Image.Image:
    data = read_bytes(path)
    if not data:
        raise BadFileError(f"{path}: the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadFileError(f"{path}: image too large to decode") from None
    except Exception:  # as in decode
        raise BadFileError(f"{path}: not an image (or of an unknown type)") from None
    check_pixels(path, image.width, image.height)
    return image
