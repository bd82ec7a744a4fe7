"""Pictures that cover the surfaces of a synthetic world.

Photographs come from the scikit-image wheel (folder ``skimage/data``, nothing is downloaded); only those under
free terms are used, as scikit-image's own documentation states them:

======================  =============================================================
astronaut.png           public domain (NASA)
brick.png, grass.png,   CC0 (CC0Textures, linolafett, CC0Textures)
gravel.png
camera.png              CC0 (Lav Varshney)
chelsea.png             CC0 (Stefan van der Walt)
clock_motion.png        public domain (Stefan van der Walt)
coffee.png              CC0 (Rachel Michetti)
coins.png               no known copyright restrictions (Brooklyn Museum)
horse.png               CC0 (Andreas Preuss); a silhouette, used as a shape only
hubble_deep_field.jpg   public domain (NASA)
ihc.png                 no known copyright restrictions (CMMI)
retina.jpg              CC0 (Mikael Haggstrom)
rocket.jpg              public domain (SpaceX)
======================  =============================================================
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hmhi.synthetic.draws import log_uniform

PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
_PHOTO_SIDE = 640  # pixels; larger photographs are reduced to this once

_TONES = np.array([
    (120, 95, 70), (160, 135, 100), (85, 60, 40), (60, 80, 40), (95, 115, 60), (130, 140, 90), (110, 140, 175),
    (170, 190, 205), (75, 95, 120), (128, 128, 128), (200, 198, 190), (60, 60, 62), (205, 160, 130), (40, 38, 40),
    (230, 228, 225), (150, 60, 45),
], np.float32)  # fmt: skip

Size = tuple[int, int]


def texture(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A random surface: photograph, coloured noise, pattern, polygons or plain paint, or two of them mixed.

    Args:
        rng: Source of every choice.
        size: Height and width in pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    kinds: list[Callable[[np.random.Generator, Size], np.ndarray]] = [photo, clouds, pattern, polygons, plain]
    picture = kinds[rng.choice(5, p=[0.48, 0.2, 0.12, 0.08, 0.12])](rng, size)
    if rng.random() < 0.3:
        other = kinds[rng.choice(5, p=[0.4, 0.3, 0.12, 0.1, 0.08])](rng, size)
        share = noise(rng, size, cells=int(rng.integers(2, 6)))
        share = np.clip((share - rng.uniform(0.35, 0.65)) * rng.choice([3.0, 60.0]) + 0.5, 0, 1)[..., None]
        picture = (picture * (1 - share) + other * share).astype(np.uint8)
    if rng.random() < 0.5:
        picture = _grain(rng, picture)
    return picture


def scenic_texture(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A texture with small structure everywhere, as grounds and walls have; arguments as for `texture`."""
    values = texture(rng, size).astype(np.float32)
    relief = noise(rng, size, cells=int(rng.integers(6, 24)), octaves=4, rough=0.8)[..., None] - 0.5
    return np.clip(values + relief * rng.uniform(15, 90), 0, 255).astype(np.uint8)


def mirrored_tile(picture: np.ndarray) -> np.ndarray:
    """The picture and its mirror images, so that repeating the result shows no seam."""
    row = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return np.concatenate([row, row[::-1]], axis=0)


def noise(
    rng: np.random.Generator, size: Size, cells: int, octaves: int = 5, rough: float = 0.55
) -> np.ndarray:
    """Octave noise.

    Args:
        rng: Source of the values.
        size: Height and width in pixels.
        cells: Lattice cells across the shorter side in the coarsest octave.
        octaves: Number of octaves, each twice as fine as the last.
        rough: Amplitude of an octave relative to the last.

    Returns:
        (H, W) float32 from 0 to 1, both reached.
    """
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        step = max(1.0, min(size) / (cells * 2**octave))
        lattice = rng.random((int(height / step) + 2, int(width / step) + 2), dtype=np.float32)
        fine = cv2.resize(lattice, dsize=(width, height), interpolation=cv2.INTER_CUBIC)
        total += fine * np.float32(rough**octave)
        if step == 1.0:
            break
    total -= total.min()
    return total / max(float(total.max()), 1e-6)


def photo(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A crop of a photograph, turned, scaled and recoloured."""
    source = _photos()[rng.integers(len(_photos()))]
    share = rng.uniform(0.3, 1.0)
    height, width = source.shape[:2]
    scale = min(height / size[0], width / size[1]) * share
    crop_height, crop_width = max(8, int(size[0] * scale)), max(8, int(size[1] * scale))
    top, left = rng.integers(height - crop_height + 1), rng.integers(width - crop_width + 1)
    crop = source[top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = cv2.resize(crop, dsize=(size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return recolour(rng, crop)


def recolour(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Another white balance, contrast and brightness; sometimes another hue, or two inks instead of colour."""
    values: np.ndarray = picture.astype(np.float32) / 255
    choice = rng.random()
    if choice < 0.25:
        grey = values.mean(axis=2, keepdims=True)
        dark, light = colour(rng) * 0.5, colour(rng) * 0.5 + 0.5
        values = dark + (light - dark) * grey
    elif choice < 0.33:
        hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + rng.normal(0, 60)) % 360
        values = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    values = (values - 0.5) * rng.uniform(0.6, 1.4) + rng.uniform(0.35, 0.65)
    values = np.clip(values * rng.uniform(0.8, 1.2, 3).astype(np.float32), 0, 1)
    return (values ** np.float32(rng.uniform(0.7, 1.4)) * 255).astype(np.uint8)


def clouds(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Octave noise through a palette of a few colours."""
    field = noise(rng, size, cells=int(rng.integers(1, 12)), rough=rng.uniform(0.4, 0.8))
    stops = int(rng.integers(2, 6))
    base = colour(rng)
    palette = np.clip(base + rng.normal(0, rng.choice([0.05, 0.15]), (stops, 3)), 0, 1)
    places = np.sort(rng.random(stops))
    table = np.stack([np.interp(np.linspace(0, 1, 256), places, palette[:, c]) for c in range(3)], axis=1)
    return (table * 255).astype(np.uint8)[(field * 255).astype(np.uint8)]


def pattern(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Stripes, checks, dots or bricks of two colours, a little bent."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    bend = noise(rng, size, cells=2, octaves=2) * rng.uniform(0, 0.15) * min(size)
    angle = rng.uniform(0, np.pi)
    period = min(size) * log_uniform(rng, 0.04, 0.3)
    u = (x * np.cos(angle) + y * np.sin(angle) + bend) / period
    v = (y * np.cos(angle) - x * np.sin(angle) + bend) / period
    kind = rng.integers(4)
    if kind == 0:
        level = np.sin(2 * np.pi * u)
    elif kind == 1:
        level = np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)
    elif kind == 2:
        level = 0.3 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    else:
        shifted = u + 0.5 * (np.floor(v) % 2)
        level = 0.4 - np.maximum(np.abs(shifted % 1 - 0.5), np.abs(v % 1 - 0.5))
    share = np.clip(level * rng.choice([2.0, 20.0]) + 0.5, 0, 1)[..., None]
    first, second = colour(rng), colour(rng)
    speckle = noise(rng, size, cells=8)[..., None] * rng.uniform(0, 0.3)
    return ((first + (second - first) * share) * (1 - speckle) * 255).astype(np.uint8)


def polygons(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Many overlapping polygons and discs, as of a cluttered scene."""
    picture = clouds(rng, size)
    for _ in range(int(rng.integers(8, 40))):
        paint = tuple(float(c) for c in colour(rng) * 255)
        centre = rng.random(2) * (size[1], size[0])
        radius = min(size) * log_uniform(rng, 0.02, 0.25)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if rng.random() < 0.3:
            cv2.circle(picture, centre.astype(int).tolist(), int(radius), paint, -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(picture, [corners.astype(np.int32)], paint, cv2.LINE_AA)
    return picture


def plain(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Almost one colour with a soft gradient, where flow estimators have nothing to hold on to."""
    shade = noise(rng, size, cells=1, octaves=2)[..., None] - 0.5
    values = colour(rng) + shade * rng.uniform(0.02, 0.2)
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def colour(rng: np.random.Generator) -> np.ndarray:
    """A colour (3,) within 0-1: mostly those of earth, plants, sky, stone and skin, at times any."""
    if rng.random() < 0.2:
        return rng.random(3, dtype=np.float32)
    tone = _TONES[rng.integers(len(_TONES))] / 255 * rng.uniform(0.4, 1.4)
    return np.clip(tone + rng.normal(0, 0.06, 3), 0, 1).astype(np.float32)


def horse_silhouette() -> np.ndarray:
    """(H, W) uint8 opacity of a standing horse, cropped to it."""
    inside = np.asarray(Image.open(_photo_folder() / "horse.png").convert("L")) < 128
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8) * 255


def _grain(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    fine = rng.standard_normal(picture.shape[:2], dtype=np.float32) * np.float32(rng.uniform(2, 14))
    return np.clip(picture + cv2.GaussianBlur(fine, (0, 0), 0.8)[..., None], 0, 255).astype(np.uint8)


def _photo_folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data"


@functools.cache
def _photos() -> tuple[np.ndarray, ...]:
    photos = []
    for name in PHOTOS:
        picture = np.asarray(Image.open(_photo_folder() / name).convert("RGB"))
        scale = min(1.0, _PHOTO_SIDE / max(picture.shape[:2]))
        dsize = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        photos.append(cv2.resize(picture, dsize=dsize, interpolation=cv2.INTER_AREA))
    return tuple(photos)
