"""What lens, sensor and codec do to frames, and what an estimator does to flow."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from hmhi.flow.codec import flow_to_rgb, rgb_to_flow
from hmhi.synthetic.draws import log_normal
from hmhi.synthetic.motion import Curve, sway
from hmhi.synthetic.textures import noise


@dataclass(frozen=True)
class Lens:
    """Optics, light, sensor and codec of one clip."""

    shutter: float
    """Share of the frame time during which the shutter is open; 0 freezes all motion."""
    defocus: float
    """Standard deviation of the blur in pixels; 0 is sharp."""
    tint: np.ndarray
    """Gain of each channel (3,)."""
    gamma: float
    """Exponent on 0-1 values."""
    light: Curve
    """Relative change of brightness over time."""
    corners: float
    """How much darker the corners are."""
    sensor: float
    """Standard deviation of the noise in levels."""
    quality: int
    """JPEG quality; 100 leaves the frame as it is."""


def draw_lens(rng: np.random.Generator) -> Lens:
    """A random camera, from clean to poor."""
    return Lens(
        shutter=rng.uniform(0.2, 1.0) if rng.random() < 0.45 else 0.0,
        defocus=rng.uniform(0.4, 1.2) if rng.random() < 0.4 else 0.0,
        tint=rng.normal(1, 0.06, 3).astype(np.float32),
        gamma=log_normal(rng, 1.0, 0.15),
        light=sway(rng, rng.choice([0.0, 0.004, 0.015], p=[0.5, 0.3, 0.2]), (4, 60), 2),
        corners=rng.uniform(0, 0.4) if rng.random() < 0.3 else 0.0,
        sensor=rng.uniform(1, 7) if rng.random() < 0.6 else 0.0,
        quality=int(rng.integers(40, 96)) if rng.random() < 0.6 else 100,
    )


def photograph(
    rng: np.random.Generator, image: np.ndarray, flow: np.ndarray, lens: Lens, t: float
) -> np.ndarray:
    """Turn a rendered frame into one that a camera may have stored.

    Args:
        rng: Source of the sensor noise.
        image: (H, W, 3) float32, 0-255.
        flow: (H, W, 2) float32 of that frame in pixels, along which motion blurs.
        lens: The camera.
        t: Time in frames.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    if lens.shutter:
        image = _motion_blur(image, flow * np.float32(lens.shutter))
    if lens.defocus:
        image = cv2.GaussianBlur(image, (0, 0), lens.defocus)
    gain = lens.tint * np.float32(1 + lens.light(t))
    image = image * gain
    if lens.gamma != 1:
        image = np.power(np.clip(image, 0, 255) / 255, np.float32(lens.gamma)) * 255
    if lens.corners:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        image = image * (1 - lens.corners * 0.5 * (x * x + y * y))[..., None]
    if lens.sensor:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(lens.sensor)
    stored = np.clip(image, 0, 255).astype(np.uint8)
    return _jpeg(stored, lens.quality) if lens.quality < 100 else stored


@dataclass(frozen=True)
class Estimator:
    """The faults of an imaginary flow estimator; lengths in pixels of a 256 x 256 frame."""

    blur: float
    """Standard deviation of its smoothing."""
    coarse: float
    """How many times fewer pixels it works on along each axis."""
    slip: float
    """By how much its motion edges miss the real ones."""
    bleed: float
    """How far unusual motion spreads over its surroundings."""
    sparks: int
    """Number of spots with motion out of nowhere."""
    wander: float
    """Smooth error, relative to the frame's typical motion."""
    holes: float
    """Share of the frame where it loses track and fills in from far around."""
    quality: int
    """JPEG quality of its stored colour map; 100 stores no colours."""


def draw_estimator(rng: np.random.Generator) -> Estimator:
    """A random estimator, from nearly exact to poor."""
    poor = rng.uniform(0, 1)
    return Estimator(
        blur=rng.uniform(0, 5) * poor,
        coarse=1 + rng.uniform(0, 7) * poor * (rng.random() < 0.6),
        slip=rng.uniform(0, 5) * poor,
        bleed=rng.uniform(0, 6) * poor * (rng.random() < 0.6),
        sparks=int(rng.integers(0, 16) * poor * (rng.random() < 0.5)),
        wander=rng.uniform(0, 0.35) * poor,
        holes=rng.uniform(0, 0.35) * poor * (rng.random() < 0.6),
        quality=int(rng.integers(50, 96)) if rng.random() < 0.5 else 100,
    )


def degrade(rng: np.random.Generator, flow: np.ndarray, faults: Estimator) -> np.ndarray:
    """What an estimator with these faults would make of a flow field.

    Args:
        rng: Source of the errors of this frame.
        flow: (H, W, 2) float32, exact, in pixels.
        faults: Its faults.

    Returns:
        (H, W, 2) float32 in pixels.
    """
    height, width = size = flow.shape[:2]
    unit = np.sqrt(height * width) / 256
    if faults.slip:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        x += (noise(rng, size, cells=8, octaves=2) - 0.5) * np.float32(2 * faults.slip * unit)
        y += (noise(rng, size, cells=8, octaves=2) - 0.5) * np.float32(2 * faults.slip * unit)
        flow = cv2.remap(flow, x, y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if faults.bleed >= 1:
        flow = _bleed(flow, faults.bleed * unit)
    if faults.sparks:
        flow = _sparks(rng, flow, faults.sparks, unit)
    if faults.holes:
        filled = cv2.blur(flow, ksize=(round(48 * unit) | 1,) * 2)
        field = noise(rng, size, cells=5, octaves=3)
        lost = (field < np.quantile(field, faults.holes))[..., None]
        flow = np.where(lost, filled, flow)
    if faults.coarse > 1:
        few = (max(4, round(width / faults.coarse)), max(4, round(height / faults.coarse)))
        flow = cv2.resize(flow, dsize=few, interpolation=cv2.INTER_AREA)
        flow = cv2.resize(flow, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
    if faults.blur > 0.3:
        flow = cv2.GaussianBlur(flow, (0, 0), faults.blur * unit)
    if faults.wander:
        typical = float(np.sqrt(np.square(flow).sum(axis=2).mean())) * faults.wander
        error = np.stack([noise(rng, size, cells=5, octaves=3) - 0.5 for _ in range(2)], axis=2)
        flow = flow + error * np.float32(2 * typical)
    if faults.quality < 100:
        largest = np.sqrt(np.square(flow).sum(axis=2).max())
        flow = rgb_to_flow(_jpeg(flow_to_rgb(flow), faults.quality)) * largest
    return flow.astype(np.float32)


def _bleed(flow: np.ndarray, reach: float) -> np.ndarray:
    """Let each pixel take over the motion at `reach` pixels if that differs more from the frame's median."""
    usual = np.median(flow[::4, ::4], axis=(0, 1)).astype(np.float32)
    strongest, strength = flow, np.square(flow - usual).sum(axis=2)
    for angle in np.arange(8) * np.pi / 4:
        shift = np.array([[1, 0, reach * np.cos(angle)], [0, 1, reach * np.sin(angle)]], np.float32)
        moved = cv2.warpAffine(
            flow, shift, dsize=flow.shape[1::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
        )
        unusual = np.square(moved - usual).sum(axis=2)
        taken = unusual > strength
        strongest = np.where(taken[..., None], moved, strongest)
        strength = np.maximum(strength, unusual)
    return strongest


def _sparks(rng: np.random.Generator, flow: np.ndarray, count: int, unit: float) -> np.ndarray:
    height, width = flow.shape[:2]
    largest = np.sqrt(np.square(flow).sum(axis=2).max())
    flow = flow.copy()
    for _ in range(count):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(max(1, round(rng.uniform(1, 9) * unit)) for _ in range(2))
        motion = rng.normal(0, 0.4, 2) * largest
        cv2.ellipse(flow, centre, axes, rng.uniform(0, 180), 0, 360, motion.tolist(), -1)
    return flow


def _motion_blur(image: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Average of the image pulled along a path of motion, from half of it back to half of it ahead."""
    longest = float(np.abs(path).max())
    if longest < 0.7:
        return image
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    path = cv2.blur(path, ksize=(5, 5))  # so that an edge smears into what lies beside it
    taps = np.linspace(-0.5, 0.5, int(np.clip(longest, 3, 7)), dtype=np.float32)
    total = np.zeros_like(image)
    for tap in taps:
        total += cv2.remap(
            image, x + path[..., 0] * tap, y + path[..., 1] * tap,
            interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return total / len(taps)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))
