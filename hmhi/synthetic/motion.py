"""How cameras and objects of a synthetic world move: closed-form functions of the time in frames.

Because nothing is integrated step by step, a frame can be rendered at any time, alone, and flow between two
times is exact. World axes: x right, y down, z forward; the unit of length is the distance from the camera to
the salient object at time 0. Homographies act on column vectors (x, y, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """A smooth scalar of time: drift * t + sum of amplitude * sin(rate * t + phase)."""

    drift: float = 0.0
    amplitudes: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    phases: tuple[float, ...] = ()

    def __call__(self, t: float) -> float:
        """Value at time `t` in frames."""
        waves = zip(self.amplitudes, self.rates, self.phases, strict=True)
        return self.drift * t + sum(a * math.sin(r * t + p) for a, r, p in waves)


STILL = Curve()


def sway(rng: np.random.Generator, speed: float, period: tuple[float, float], count: int = 2) -> Curve:
    """A curve that oscillates about 0 with about `speed` per frame, with periods in frames from a range."""
    rates = 2 * np.pi / np.exp(rng.uniform(np.log(period[0]), np.log(period[1]), count))
    amplitudes = speed / rates / count * rng.uniform(0.5, 1.5, count)
    return Curve(0.0, tuple(amplitudes), tuple(rates), tuple(rng.uniform(0, 2 * np.pi, count)))


def travel(rng: np.random.Generator, speed: float, stops: bool = False) -> Curve:
    """A curve that goes one way at about `speed` per frame, unevenly; with `stops` it halts now and then."""
    rate = 2 * np.pi / rng.uniform(12, 40)
    unevenness = 1.0 if stops else rng.uniform(0, 0.5)
    return Curve(speed, (speed / rate * unevenness,), (rate,), (rng.uniform(0, 2 * np.pi),))


def bounded(rng: np.random.Generator, speed: float, reach: float) -> Curve:
    """A curve that goes to and fro within about +-`reach`, at most at `speed` per frame."""
    return Curve(0.0, (reach,), (abs(speed) / reach,), (rng.choice([0.0, np.pi]) + rng.normal(0, 0.5),))


def joined(first: Curve, second: Curve) -> Curve:
    """The sum of two curves."""
    return Curve(
        first.drift + second.drift, first.amplitudes + second.amplitudes, first.rates + second.rates,
        first.phases + second.phases,
    )  # fmt: skip


@dataclass(frozen=True)
class Path:
    """Where a thing is: start plus one curve for each world axis."""

    start: tuple[float, float, float]
    x: Curve = STILL
    y: Curve = STILL
    z: Curve = STILL

    def __call__(self, t: float) -> np.ndarray:
        """World position (3,) at time `t`."""
        return np.array(self.start) + (self.x(t), self.y(t), self.z(t))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a path, turning, zooming and shaking."""

    focal: tuple[float, float]
    """Focal lengths along x and y in pixels; they differ where a wide frame is squeezed into a square."""
    centre: tuple[float, float]
    """Principal point in pixels; its row is the horizon while the camera is level."""
    x: Curve = STILL
    y: Curve = STILL
    z: Curve = STILL
    yaw: Curve = STILL
    pitch: Curve = STILL
    roll: Curve = STILL
    zoom: Curve = STILL
    """Logarithm of the focal length relative to time 0."""
    target: Path | None = None
    """What the camera follows, if anything."""
    ride: float = 0.0
    """Share of the target's displacement that the camera travels along with."""
    aim: float = 0.0
    """Share of the target's bearing that the camera turns along with."""

    def position(self, t: float) -> np.ndarray:
        """World position (3,) at time `t`."""
        place = np.array([self.x(t), self.y(t), self.z(t)])
        if self.target is not None and self.ride:
            moved = self.target(t) - self.target(0)
            place = place + self.ride * moved * (1, 0.3, 1)  # a hand or a car does not follow every hop
        return place

    def matrix(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Projection P (3, 3) and position c (3,): pixel ~ P @ (X - c), third component the depth."""
        place = self.position(t)
        yaw, pitch = self.yaw(t), self.pitch(t)
        if self.target is not None and self.aim:
            yaw += self.aim * (_bearing(self.target(t) - place) - _bearing(self.target(0)))
        zoom = np.exp(self.zoom(t))
        intrinsic = np.array(
            [[self.focal[0] * zoom, 0, self.centre[0]], [0, self.focal[1] * zoom, self.centre[1]], [0, 0, 1]]
        )
        return intrinsic @ _turn(2, self.roll(t)) @ _turn(0, pitch) @ _turn(1, yaw), place

    def plane(self, t: float, origin: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Homography (3, 3) from plane coordinates to pixels at time `t`.

        Args:
            t: Time in frames.
            origin: World point (3,) of plane coordinates (0, 0).
            across: World vector (3,) of one unit of the first coordinate.
            along: World vector (3,) of one unit of the second coordinate.
        """
        projection, place = self.matrix(t)
        return projection @ np.stack([across, along, origin - place], axis=1)


@dataclass(frozen=True)
class Waves:
    """A smooth deformation of a plane: coordinates q become q + sum of direction * sin(vector . q + rate * t).

    The product of a mode's amplitude and its wave vector stays well below 1, so that the map can be inverted
    by iteration.
    """

    directions: np.ndarray
    vectors: np.ndarray
    rates: np.ndarray
    phases: np.ndarray

    def offset(self, x: np.ndarray, y: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Displacement at plane coordinates `x`, `y` and time `t`."""
        dx, dy = np.zeros_like(x), np.zeros_like(y)
        for (ax, ay), (kx, ky), rate, phase in zip(
            self.directions, self.vectors, self.rates, self.phases, strict=True
        ):
            wave = np.sin(x * np.float32(kx) + y * np.float32(ky) + np.float32(rate * t + phase))
            dx += wave * np.float32(ax)
            dy += wave * np.float32(ay)
        return dx, dy

    def invert(
        self, x: np.ndarray, y: np.ndarray, t: float, guess: tuple[np.ndarray, np.ndarray], steps: int = 5
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates that the deformation at time `t` takes to `x`, `y`, from a nearby guess."""
        for _ in range(steps):
            dx, dy = self.offset(*guess, t)
            guess = (x - dx, y - dy)
        return guess


def random_waves(
    rng: np.random.Generator, strength: float, wavelength: tuple[float, float], period: tuple[float, float],
    count: int = 2,
) -> Waves:  # fmt: skip
    """Waves of random directions.

    Args:
        rng: Source of every choice.
        strength: Largest stretch that all modes make together; below 1.
        wavelength: Range of wavelengths in plane units.
        period: Range of periods in frames.
        count: Number of modes.
    """
    angle = rng.uniform(0, 2 * np.pi, count)
    number = 2 * np.pi / np.exp(rng.uniform(np.log(wavelength[0]), np.log(wavelength[1]), count))
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1) * number[:, None]
    swing = rng.uniform(0, 2 * np.pi, count)
    amplitude = strength / number / count
    directions = np.stack([np.cos(swing), np.sin(swing)], axis=1) * amplitude[:, None]
    rates = (
        2
        * np.pi
        / np.exp(rng.uniform(np.log(period[0]), np.log(period[1]), count))
        * rng.choice([-1, 1], count)
    )
    return Waves(directions, vectors, rates, rng.uniform(0, 2 * np.pi, count))


def _bearing(direction: np.ndarray) -> float:
    return float(np.arctan2(direction[0], direction[2]))


def _turn(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    first, second = [i for i in range(3) if i != axis]
    rotation[first, first] = rotation[second, second] = c
    rotation[first, second], rotation[second, first] = -s, s
    return rotation
