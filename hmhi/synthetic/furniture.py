"""What fills a synthetic world: movers, scenery, ground, backdrop, smoke."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hmhi.synthetic.draws import log_uniform
from hmhi.synthetic.motion import STILL, Camera, Curve, Path, Waves, joined, random_waves, sway, travel
from hmhi.synthetic.parts import Part
from hmhi.synthetic.render import Surface, fixed
from hmhi.synthetic.textures import colour, mirrored_tile, noise, scenic_texture
from hmhi.synthetic.things import CREATURES, SCENERY, random_thing

_RIGHT, _DOWN, _AHEAD = np.eye(3)
_FAR = 40.0  # distance of the backdrop where there is ground


@dataclass(frozen=True, eq=False)
class Thing:
    """A billboard that faces the camera's first direction, with its feet on a path."""

    parts: list[Part]
    path: Path
    height: float
    """In world units."""
    label: int = 0
    mirror: float = 1.0
    """-1 looks left."""
    turn: Curve = STILL
    """Angle about its middle."""
    grow: Curve = STILL
    """Logarithm of its size relative to time 0."""
    waves: Waves | None = None
    shadow: float = 0.0
    """How dark the shadow on the ground is."""
    frozen: bool = False
    """Keeps its pose, whatever its hinges could do."""

    def surfaces(self, camera: Camera) -> list[Surface]:
        """One surface a part."""

        def outer(t: float) -> np.ndarray:
            return camera.plane(t, *self._billboard(t))

        return [
            Surface(
                part.canvas, outer, fixed(part.to_thing(0)) if self.frozen else part.to_thing,
                self.waves, self.label,
            )
            for part in self.parts
        ]  # fmt: skip

    def _billboard(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World point of its feet, and the world vectors of a unit across and along it."""
        size = self.height * np.exp(self.grow(t))
        c, s = np.cos(self.turn(t)), np.sin(self.turn(t))
        across, along = (c * _RIGHT + s * _DOWN) * size, (-s * _RIGHT + c * _DOWN) * size
        # Turns about the middle of the body, half its height above the feet.
        return self.path(t) - 0.5 * size * _DOWN + 0.5 * along, across * self.mirror, along

    def reflect(self, camera: Camera, ground: float, strength: float, ripples: Waves) -> list[Surface]:
        """Its image in wet ground or water: it moves as the thing does, but is not labelled.

        Args:
            camera: Who looks.
            ground: Height of the mirror, downward.
            strength: Opacity of the image, 0-1.
            ripples: Deform the image, in units of the thing's height.
        """
        flip = np.array([1.0, -1.0, 1.0])

        def outer(t: float) -> np.ndarray:
            origin, across, along = self._billboard(t)
            return camera.plane(t, origin * flip + 2 * ground * _DOWN, across * flip, along * flip)

        images = []
        for part in self.parts:
            canvas = part.canvas.copy()
            canvas[..., 3] = canvas[..., 3] * strength
            images.append(
                Surface(canvas, outer, fixed(part.to_thing(0)) if self.frozen else part.to_thing, ripples)
            )
        return images

    def cast(self, camera: Camera, ground: float) -> Surface:
        """Its shadow on the ground."""
        y, x = np.mgrid[-1:1:48j, -1:1:48j]
        opacity = (np.clip(1.2 - np.hypot(x, y) * 1.2, 0, 1) * self.shadow * 255).astype(np.uint8)
        unit = np.array([[2 / 48, 0, -1], [0, 2 / 48, -1], [0, 0, 1.0]])

        def outer(t: float) -> np.ndarray:
            feet = self.path(t)
            place = np.array([feet[0] + 0.1 * self.height, ground, feet[2]])
            return camera.plane(t, place, 0.45 * self.height * _RIGHT, 0.3 * self.height * _AHEAD)

        return Surface(np.dstack([np.zeros((48, 48, 3), np.uint8), opacity]), outer, fixed(unit), ghost=True)


@dataclass(frozen=True)
class SceneLayout:
    """What is drawn before anything is painted, because it may be drawn again."""

    kind: str
    """``ground`` seen to the horizon, ``floor`` seen from above, or ``wall``."""
    camera: Camera
    path: Path
    height: float
    """Of the salient thing, in world units."""
    speed: float
    """Typical, in world units for each frame at distance 1."""
    ground: float


def mover(rng: np.random.Generator, layout: SceneLayout, path: Path, height: float, label: int) -> Thing:
    """A thing of a random kind that goes along a path, deforming, turning and growing a little."""
    apparent = height * layout.camera.focal[1] / path.start[2]
    parts = random_thing(rng, CREATURES, scale=float(np.clip(apparent, 12, 420)))
    first_step = path.x(1) - path.x(0)
    waves = None
    if rng.random() < 0.65:
        waves = random_waves(rng, rng.uniform(0.04, 0.35), (0.4, 2.5), (8, 50), int(rng.integers(1, 4)))
    turn = STILL
    if rng.random() < 0.25:
        turn = sway(rng, rng.uniform(0.005, 0.05), (12, 60))
    elif rng.random() < 0.08 or (layout.kind == "floor" and rng.random() < 0.3):
        turn = Curve(rng.normal(0, 0.06), (rng.uniform(-3, 3),), (0.0,), (np.pi / 2,))
    grow = sway(rng, 0.01, (15, 50)) if rng.random() < 0.2 else STILL
    mirror = -1.0 if first_step < 0 else 1.0
    shadow = rng.uniform(0.2, 0.7) if rng.random() < 0.5 else 0.0
    return Thing(parts, path, height, label, mirror, turn, grow, waves, shadow)


def scenery(
    rng: np.random.Generator, layout: SceneLayout, size: tuple[int, int], duration: int
) -> list[Thing]:
    """Things that stand still, nearer and farther than the salient one."""
    fx, fy = layout.camera.focal
    drift = layout.camera.position(duration)[0] - layout.camera.position(0)[0]
    things = []
    for _ in range(rng.choice([0, 2, 4, 8], p=[0.25, 0.3, 0.25, 0.2])):
        distance = log_uniform(rng, 0.6, 8)
        if distance < 0.95 and rng.random() < 0.6:
            continue  # few stand in front
        x = rng.uniform(-0.7, 0.7) * distance * size[1] / fx + rng.uniform(0, 1) * drift
        y = layout.ground if layout.kind != "wall" else rng.uniform(-0.6, 0.9) * size[0] / fy * distance
        height = log_uniform(rng, 0.15, 1.6) * size[0] / fy * np.sqrt(distance)
        apparent = height * fy / distance
        parts = random_thing(rng, SCENERY, scale=float(np.clip(apparent, 12, 300)))
        shadow = 0.4 if rng.random() < 0.3 else 0.0
        wind = (
            random_waves(rng, rng.uniform(0.02, 0.12), (0.2, 1.0), (6, 30)) if rng.random() < 0.25 else None
        )
        things.append(
            Thing(
                parts, Path((x, y, distance)), height, mirror=rng.choice([-1.0, 1.0]), waves=wind, shadow=shadow,
                frozen=True,
            )
        )  # fmt: skip
    return things


def backdrop(
    rng: np.random.Generator, layout: SceneLayout, size: tuple[int, int], *, water: bool
) -> list[Surface]:
    """What is behind every thing, from back to front: a wall; or a far picture, the ground and ridges on it."""
    fx = layout.camera.focal[0]
    picture = scenic_texture(rng, (size[0], int(size[1] * 1.5)))
    if layout.kind == "wall":
        slant, tilt = (rng.uniform(-0.8, 0.8), rng.uniform(-0.4, 0.4)) if rng.random() < 0.5 else (0.0, 0.0)
        distance = log_uniform(rng, 1.1, 8) + 0.5 * np.tan(abs(slant))
        across = np.array([np.cos(slant), 0, np.sin(slant)])
        along = np.array([0, np.cos(tilt), np.sin(tilt)])
        waves = _water(rng, distance) if water else None
        texel = distance / fx * rng.uniform(0.7, 1.6)
        return [_tiled(rng, layout.camera, picture, distance * _AHEAD, across, along, texel, waves)]
    far = _tiled(
        rng, layout.camera, picture, _FAR * _AHEAD, _RIGHT, _DOWN, _FAR / fx * rng.uniform(0.7, 1.6), None
    )
    waves = _water(rng, 1.0) if water else None
    floor = scenic_texture(rng, size)
    ground = _tiled(
        rng, layout.camera, floor, layout.ground * _DOWN, _RIGHT, -_AHEAD, rng.uniform(0.6, 1.5) / fx, waves
    )
    ridges = rng.integers(4) if layout.kind == "ground" else 0
    depths = sorted((log_uniform(rng, 2.5, 25) for _ in range(ridges)), reverse=True)
    return [far, ground, *(ridge(rng, layout, size, depth) for depth in depths)]


def _tiled(
    rng: np.random.Generator, camera: Camera, picture: np.ndarray, origin: np.ndarray, across: np.ndarray,
    along: np.ndarray, texel: float, waves: Waves | None,
) -> Surface:  # fmt: skip
    """An endless plane; the view is not centred on a corner of the picture, where it meets its mirror image."""
    height, width = picture.shape[:2]
    left, top = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    unit = np.array([[texel, 0, -left * texel], [0, texel, -top * texel], [0, 0, 1]])

    def outer(t: float) -> np.ndarray:
        return camera.plane(t, origin, across, along)

    return Surface(mirrored_tile(picture), outer, fixed(unit), waves)


def ridge(rng: np.random.Generator, layout: SceneLayout, size: tuple[int, int], depth: float) -> Surface:
    """Hills, hedges or houses: a long strip with an uneven top that stands on the ground."""
    fx = layout.camera.focal[0]
    rows, columns = size[0] // 2, size[1] * 3
    profile = noise(rng, (2, columns), cells=1, octaves=7, rough=rng.uniform(0.3, 0.7))[0]
    if rng.random() < 0.4:
        blocks = rng.random(rng.integers(6, 30))
        profile = cv2.resize(
            blocks[None].astype(np.float32), dsize=(columns, 1), interpolation=cv2.INTER_NEAREST
        )[0]
    top = (0.9 * profile * rng.uniform(0.2, 1.0)) * rows
    opacity = (np.arange(rows, 0, -1)[:, None] < top[None]).astype(np.uint8) * 255
    opacity = cv2.GaussianBlur(opacity, (0, 0), 0.6)
    tile = mirrored_tile(scenic_texture(rng, (rows, size[1])))
    canvas = np.dstack([np.concatenate([tile, tile], axis=1)[:rows, :columns], opacity])
    texel = depth / fx
    unit = np.array([[texel, 0, -columns / 2 * texel], [0, texel, -rows * texel], [0, 0, 1]])
    origin = np.array([0, layout.ground * 1.02, depth])
    camera = layout.camera
    return Surface(canvas, lambda t: camera.plane(t, origin, _RIGHT, _DOWN), fixed(unit))


def _water(rng: np.random.Generator, distance: float) -> Waves:
    """Ripples, in the units of a plane at a distance."""
    return random_waves(rng, rng.uniform(0.1, 0.4), (0.05 * distance, 0.6 * distance), (6, 30), 3)


def smoke(rng: np.random.Generator, layout: SceneLayout) -> Surface:
    """A drifting cloud that one sees through; spray and dust look alike."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    puffs = noise(rng, (128, 128), cells=3) * np.clip(1.3 - np.hypot(x, y) * 1.3, 0, 1)
    canvas = np.empty((128, 128, 4), np.uint8)
    canvas[..., :3] = colour(rng) * 255
    canvas[..., 3] = puffs * rng.uniform(120, 230)
    extent = layout.height * rng.uniform(0.8, 3)
    unit = np.array([[extent / 64, 0, -extent], [0, extent / 64, -extent], [0, 0, 1]])
    drift = Path(
        tuple(np.array(layout.path.start) + rng.normal(0, 0.3, 3) * layout.height),
        joined(layout.path.x, travel(rng, layout.speed * rng.normal(0, 0.3))),
    )
    camera = layout.camera
    waves = random_waves(rng, 0.3, (0.3 * extent, extent), (10, 40))
    return Surface(canvas, lambda t: camera.plane(t, drift(t), _RIGHT, _DOWN), fixed(unit), waves, ghost=True)
