"""Pieces that the things of a synthetic world are made of: flat parts with an opacity, joined by hinges.

Thing coordinates: x right, y down, the height of a thing is about 1, its feet are at y = 0, its head at
y = -1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hmhi.synthetic.motion import STILL, Curve
from hmhi.synthetic.textures import texture

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Part:
    """One flat piece, hinged at its pivot to a point of its parent."""

    canvas: np.ndarray
    """(h, w, 4) uint8 RGB and opacity; nothing lies beyond it."""
    scale: float
    """Canvas pixels for each unit of thing coordinates."""
    pivot: Point
    """Canvas pixel of the hinge."""
    joint: Point
    """Where the hinge sits, in the parent's coordinates (whose origin is the parent's own hinge)."""
    rest: float = 0.0
    """Angle about the hinge at rest, in radians."""
    swing: Curve = STILL
    """Angle added over time."""
    parent: Part | None = None

    def frame(self, t: float) -> np.ndarray:
        """Matrix (3, 3) from this part's hinge coordinates to thing coordinates at time `t`."""
        angle = self.rest + self.swing(t)
        c, s = np.cos(angle), np.sin(angle)
        hinge = np.array([[c, -s, self.joint[0]], [s, c, self.joint[1]], [0, 0, 1]])
        return hinge if self.parent is None else self.parent.frame(t) @ hinge

    def to_thing(self, t: float) -> np.ndarray:
        """Matrix (3, 3) from canvas pixels to thing coordinates at time `t`."""
        unit = 1 / self.scale
        shift = np.array([[unit, 0, -self.pivot[0] * unit], [0, unit, -self.pivot[1] * unit], [0, 0, 1]])
        return self.frame(t) @ shift


class Maker:
    """Draws parts at one resolution with the coats of one thing.

    Args:
        rng: Source of every choice.
        scale: Canvas pixels for each unit of thing height.
    """

    def __init__(self, rng: np.random.Generator, scale: float) -> None:
        self.rng = rng
        self.scale = scale
        self.coats = [texture(rng, (128, 128)) for _ in range(int(rng.integers(1, 4)))]

    def bone(
        self, length: float, top: float, bottom: float, joint: Point, parent: Part | None = None,
        rest: float = 0.0, swing: Curve = STILL, coat: int = 0,
    ) -> Part:  # fmt: skip
        """A rounded limb that hangs down from its hinge, `top` and `bottom` thick."""
        margin = max(top, bottom) / 2 + 2 / self.scale
        height, width = length + 2 * margin, 2 * margin
        opacity = self._blank(height, width)
        centre, start, end = width / 2, margin, margin + length
        outline = [
            (centre - top / 2, start), (centre + top / 2, start),
            (centre + bottom / 2, end), (centre - bottom / 2, end),
        ]  # fmt: skip
        self._fill(opacity, outline)
        for row, thickness in ((start, top), (end, bottom)):
            self._disc(opacity, (centre, row), thickness / 2)
        pivot = (centre * self.scale, start * self.scale)
        return Part(self.paint(opacity, coat), self.scale, pivot, joint, rest, swing, parent)

    def piece(
        self, outline: np.ndarray, joint: Point, parent: Part | None = None, rest: float = 0.0,
        swing: Curve = STILL, coat: int = 0, pivot: Point = (0.0, 0.0),
    ) -> Part:  # fmt: skip
        """A filled polygon; outline (N, 2) and pivot in thing units."""
        margin = 2 / self.scale
        low = outline.min(axis=0) - margin
        extent = outline.max(axis=0) + margin - low
        opacity = self._blank(extent[1], extent[0])
        self._fill(opacity, outline - low)
        hinge = ((pivot[0] - low[0]) * self.scale, (pivot[1] - low[1]) * self.scale)
        return Part(self.paint(opacity, coat), self.scale, hinge, joint, rest, swing, parent)

    def ring(self, radius: float, width: float, joint: Point, swing: Curve, spokes: int) -> Part:
        """A wheel of a rim, a hub and spokes that one can look through."""
        side = 2 * radius + 4 / self.scale
        opacity = self._blank(side, side)
        middle = round(side / 2 * self.scale)
        rim = max(1, round(width * self.scale))
        cv2.circle(opacity, (middle, middle), round((radius - width / 2) * self.scale), 255, rim, cv2.LINE_AA)
        for angle in np.arange(spokes) * np.pi / max(spokes, 1):
            arm = np.array([np.cos(angle), np.sin(angle)]) * (radius - width) * self.scale
            ends = [np.rint(middle + sign * arm).astype(int).tolist() for sign in (-1, 1)]
            cv2.line(opacity, ends[0], ends[1], 255, max(1, rim // 3), cv2.LINE_AA)
        return Part(self.paint(opacity, 1), self.scale, (middle, middle), joint, 0.0, swing)

    def stamp(self, opacity: np.ndarray, height: float, joint: Point, coat: int = 0) -> Part:
        """A given opacity picture, `height` tall, standing on its hinge."""
        scale = opacity.shape[0] / height
        return Part(self.paint(opacity, coat), scale, (opacity.shape[1] / 2, opacity.shape[0]), joint)

    def paint(self, opacity: np.ndarray, coat: int = 0) -> np.ndarray:
        """Lay a window of a coat under an opacity, darker to the rims and downward as a body is."""
        rng = self.rng
        height, width = opacity.shape
        skin = self.coats[coat % len(self.coats)]
        side = max(8, min(128, round(128 * max(height, width) / max(self.scale, 1) * rng.uniform(0.5, 1.0))))
        top, left = rng.integers(128 - side + 1, size=2)
        window = skin[top : top + side, left : left + side]
        colours = cv2.resize(window, dsize=(width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        softening = round(min(height, width) / 2) | 1
        round_shade = cv2.blur(opacity, ksize=(softening, softening)).astype(np.float32) / 255
        slope = np.linspace(rng.uniform(0, 0.3), -rng.uniform(0, 0.3), height, dtype=np.float32)[:, None]
        shade = 1 + slope - rng.uniform(0, 0.6) * (1 - round_shade)
        painted = np.clip(colours * shade[..., None], 0, 255).astype(np.uint8)
        return np.dstack([painted, opacity])

    def _blank(self, height: float, width: float) -> np.ndarray:
        return np.zeros((max(3, round(height * self.scale)), max(3, round(width * self.scale))), np.uint8)

    def _fill(self, opacity: np.ndarray, outline: np.ndarray | list[Point]) -> None:
        corners = np.rint(np.asarray(outline) * self.scale * 16).astype(np.int32)
        cv2.fillPoly(opacity, [corners], 255, cv2.LINE_AA, shift=4)

    def _disc(self, opacity: np.ndarray, centre: Point, radius: float) -> None:
        place = tuple(round(c * self.scale * 16) for c in centre)
        cv2.circle(opacity, place, max(1, round(radius * self.scale * 16)), 255, -1, cv2.LINE_AA, shift=4)


def blob_outline(rng: np.random.Generator, width: float, height: float, rough: float) -> np.ndarray:
    """A closed smooth curve (64, 2) about the origin."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones(64)
    for k in range(2, 7):
        radius += rng.normal(0, rough / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, 1.8)
    return np.stack([np.cos(angle) * radius * width / 2, np.sin(angle) * radius * height / 2], axis=1)


def resized(parts: list[Part], factor: float, shift: Point) -> list[Part]:
    """The same parts, `factor` times as large and moved by `shift`; hinges keep swinging."""
    done: dict[Part, Part] = {}

    def change(part: Part) -> Part:
        if part not in done:
            parent = change(part.parent) if part.parent is not None else None
            moved = (0.0, 0.0) if parent is not None else shift
            joint = (part.joint[0] * factor + moved[0], part.joint[1] * factor + moved[1])
            done[part] = replace(part, scale=part.scale / factor, joint=joint, parent=parent)
        return done[part]

    return [change(part) for part in parts]
