"""Drawing a random world: where the camera is, what moves, and what it looks like all around.

The rule of the mask: salient is what moves by itself in front. A scene has one salient thing, or a group of
up to three that go together; each of the group has a label, from 1 on. Nothing that stands still is labelled,
whatever it looks like, nor is a mover far smaller than the salient thing, nor shadows, smoke and water. Where several
objects are asked for, movers that go ways of their own join the salient ones, with the labels that follow.
"""

from __future__ import annotations

import numpy as np

from hmhi.synthetic.draws import log_normal, log_uniform
from hmhi.synthetic.furniture import SceneLayout, Thing, backdrop, mover, ridge, scenery, smoke
from hmhi.synthetic.motion import (
    STILL,
    Camera,
    Curve,
    Path,
    bounded,
    joined,
    random_waves,
    sway,
    travel,
)
from hmhi.synthetic.render import Surface

_DOWN = np.array([0.0, 1.0, 0.0])


class Scene:
    """A world that can be asked for the surfaces to paint at any time.

    Args:
        camera: Who looks.
        background: Surfaces behind everything, from back to front.
        things: What moves and what stands.
        ground: Height of the ground plane, downward; None where nothing casts a shadow.
        foreground: Surfaces in front of everything.
        reflections: Images of the things in the ground.
    """

    def __init__(
        self, camera: Camera, background: list[Surface], things: list[Thing], ground: float | None,
        foreground: list[Surface], reflections: list[Surface],
    ) -> None:  # fmt: skip
        self.camera = camera
        self.background = background
        self.foreground = foreground
        self.reflections = reflections
        self.things = [(thing, thing.surfaces(camera)) for thing in things]
        self.shadows = [thing.cast(camera, ground) for thing in things if thing.shadow and ground is not None]

    def surfaces(self, t: float) -> list[Surface]:
        """All surfaces from back to front at time `t`."""
        eye = self.camera.position(t)
        far_to_near = sorted(self.things, key=lambda pair: -(pair[0].path(t)[2] - eye[2]))
        standing = [surface for _, surfaces in far_to_near for surface in surfaces]
        return [*self.background, *self.reflections, *self.shadows, *standing, *self.foreground]


def build_scene(
    rng: np.random.Generator, size: tuple[int, int], duration: int, objects: int, further: np.random.Generator
) -> Scene:
    """Draw a world in which the salient thing is in view, and moves, for most of a clip; some leave and return.

    Args:
        rng: Source of every choice but those about further objects.
        size: Height and width of the frames in pixels.
        duration: Last frame time that will be rendered.
        objects: Labelled movers that there are at least; the salient ones count.
        further: Source of every choice about movers beyond the salient ones.
    """
    in_view = 2 if rng.random() < 0.06 else 3
    for _ in range(60):
        layout = _draw_layout(rng, size)
        if _in_view_and_moving(layout, size, duration, in_view):
            break
    return _furnish(rng, layout, size, duration, objects, further)


def _draw_layout(rng: np.random.Generator, size: tuple[int, int]) -> SceneLayout:
    height, width = size
    kind = str(rng.choice(["ground", "floor", "wall"], p=[0.5, 0.2, 0.3]))
    # Wide video is squeezed into the network's square, so a square frame often shows a squeezed world.
    aspect = rng.choice([16 / 9, 4 / 3, width / height], p=[0.6, 0.2, 0.2])
    closeness = log_uniform(rng, 0.7, 1.8)
    fx, fy = width * closeness, height * closeness * aspect
    horizon = height * {"ground": rng.uniform(0.1, 0.6), "floor": -rng.uniform(0.2, 1.2), "wall": 0.5}[kind]
    tall = log_uniform(rng, 0.2, 1.0)
    pixel = np.sqrt(height * width) / 256 / fx  # world length at distance 1 of a pixel in a 256 x 256 frame
    speed = pixel * np.clip(log_normal(rng, 3.0, 0.7), 0.8, 14)
    low = max(horizon / height + 0.1, 0.35) if kind == "ground" else 0.3
    feet = height * rng.uniform(low, max(low, min(1.1, 0.75 + tall / 2)) + 0.01)
    side = width * rng.uniform(0.25, 0.75)
    start = ((side - width / 2) / fx, (feet - horizon) / fy, 1.0)
    mode = rng.choice(["still", "free", "aim", "ride"], p=[0.12, 0.33, 0.25, 0.3])
    sign = rng.choice([-1, 1])
    span = width / fx
    if mode == "ride":
        across = travel(rng, sign * speed, stops=rng.random() < 0.15)
    else:
        across = bounded(rng, sign * speed, span * rng.uniform(0.1, 0.45) * (2 if mode == "aim" else 1))
    upward = STILL
    if kind != "ground" or rng.random() < 0.1:
        upward = bounded(rng, speed * rng.uniform(0.05, 1.0), height / fy * rng.uniform(0.05, 0.25))
    elif rng.random() < 0.5:
        upward = sway(rng, speed * rng.uniform(0.1, 0.6), (5, 20))
    depth = bounded(rng, speed * rng.uniform(0.05, 1.2), rng.uniform(0.1, 0.4))
    path = Path(start, across, upward, depth)
    camera = _draw_camera(rng, str(mode), path, (fx, fy), (width / 2, horizon), pixel, span)
    return SceneLayout(kind, camera, path, tall * height / fy, speed, start[1])


def _draw_camera(
    rng: np.random.Generator, mode: str, path: Path, focal: tuple[float, float], centre: tuple[float, float],
    pixel: float, span: float,
) -> Camera:  # fmt: skip
    def some(chance: float, median: float, reach: float) -> Curve:
        """A to-and-fro curve with a chance, of about `median` pixels a frame."""
        speed = log_normal(rng, median, 0.7) * pixel
        curve = bounded(rng, rng.choice([-1, 1]) * speed, reach * rng.uniform(0.3, 1.0))
        return curve if mode != "still" and rng.random() < chance else STILL

    shake = pixel * rng.choice([0.0, 0.3, 1.0, 2.5], p=[0.35, 0.35, 0.22, 0.08])
    freedom = 1.0 if mode == "free" else 0.5
    return Camera(
        focal, centre,
        x=some(0.5 * freedom, 3.5, span), y=some(0.2 * freedom, 1.0, 0.3 * span),
        z=some(0.35 * freedom, 3.0, 0.3),
        yaw=joined(some(0.7 * freedom, 4.0, 0.5 * span), sway(rng, shake, (3, 14), 3)),
        pitch=joined(some(0.4 * freedom, 1.5, 0.2 * span), sway(rng, shake, (3, 14), 3)),
        roll=joined(some(0.3 * freedom, 1.0, 0.15), sway(rng, shake * 0.3, (4, 20), 2)),
        zoom=some(0.2, 1.5, 0.25),
        target=path,
        ride=rng.uniform(0.8, 1.05) if mode == "ride" else 0.0,
        aim=rng.uniform(0.7, 1.05) if mode == "aim" else 0.0,
    )  # fmt: skip


def _in_view_and_moving(layout: SceneLayout, size: tuple[int, int], duration: int, in_view: int) -> bool:
    """Whether the salient thing is in view at `in_view` of start, middle and end, and moves at two of them."""
    height, width = size
    pixel = np.sqrt(height * width) / 256
    seen = moving = 0
    for t in (0.0, duration / 2, float(duration)):
        projection, eye = layout.camera.matrix(t)
        projection_next, eye_next = layout.camera.matrix(t + 1)
        middle = layout.path(t) - 0.5 * layout.height * _DOWN
        middle_next = layout.path(t + 1) - 0.5 * layout.height * _DOWN
        x, y, depth = projection @ (middle - eye)
        if depth < 0.45:
            return False
        seen += 0.05 * width < x / depth < 0.95 * width and 0.02 * height < y / depth < 0.98 * height
        as_moved = projection_next @ (middle_next - eye_next)
        as_if_still = projection_next @ (middle - eye_next)
        own = as_moved[:2] / as_moved[2] - as_if_still[:2] / as_if_still[2]
        moving += np.hypot(*own) > 0.7 * pixel
    return seen >= in_view and moving >= 2


def _furnish(
    rng: np.random.Generator, layout: SceneLayout, size: tuple[int, int], duration: int, objects: int,
    further: np.random.Generator,
) -> Scene:  # fmt: skip
    camera, path = layout.camera, layout.path
    fx = camera.focal[0]
    things = [mover(rng, layout, path, layout.height, label=1)]
    for _ in range(rng.choice([0, 1, 2], p=[0.8, 0.14, 0.06])):
        offset = rng.normal(0, 0.5, 3) * (1.5 * layout.height, 0, 0.15)
        start = tuple(np.array(path.start) + offset)
        mate = Path(start, joined(path.x, sway(rng, layout.speed * 0.15, (15, 40))), path.y, path.z)
        things.append(mover(rng, layout, mate, layout.height * rng.uniform(0.6, 1.2), len(things) + 1))
    salient = len(things)
    for _ in range(rng.choice([0, 1, 2], p=[0.82, 0.12, 0.06])):
        far = rng.uniform(2.5, 6)
        start = (rng.uniform(-0.5, 0.5) * far * size[1] / fx, layout.ground, far)
        away = Path(start, bounded(rng, layout.speed * far * rng.uniform(0.3, 1), far * size[1] / fx * 0.3))
        things.append(mover(rng, layout, away, layout.height * min(1.0, far * 0.25), label=0))
    things += scenery(rng, layout, size, duration)
    things += [_further_mover(further, layout, size, label) for label in range(salient + 1, objects + 1)]
    foreground = []
    if layout.kind == "ground" and rng.random() < 0.12:
        foreground.append(ridge(rng, layout, size, depth=rng.uniform(0.5, 0.85)))
    if rng.random() < 0.08:
        foreground.append(smoke(rng, layout))
    water = rng.random() < 0.15
    reflections = []
    likely = 0.75 if water else 0.05  # a lake, or a wet or polished floor
    if layout.kind == "ground" and rng.random() < likely:
        strength = rng.uniform(0.3, 0.85) if water else rng.uniform(0.15, 0.45)
        ripples = random_waves(rng, rng.uniform(0.05, 0.4), (0.1, 0.8), (6, 30), 3)
        far_to_near = sorted(things, key=lambda thing: -thing.path.start[2])
        reflections = [
            image
            for thing in far_to_near
            for image in thing.reflect(camera, layout.ground, strength, ripples)
        ]
    ground = layout.ground if layout.kind != "wall" else None
    return Scene(camera, backdrop(rng, layout, size, water=water), things, ground, foreground, reflections)


def _further_mover(rng: np.random.Generator, layout: SceneLayout, size: tuple[int, int], label: int) -> Thing:
    """A mover of about the salient thing's size that goes its own way, in view when the clip begins."""
    fx, fy = layout.camera.focal
    depth = log_uniform(rng, 0.75, 2.0)
    across, high = depth * size[1] / fx, depth * size[0] / fy  # what the frame shows at this depth
    feet = layout.ground if layout.kind == "ground" else layout.ground + rng.normal(0, 0.15) * high
    speed = layout.speed * depth * log_uniform(rng, 0.4, 1.6)
    x = bounded(rng, speed, across * rng.uniform(0.1, 0.4))
    if rng.random() < 0.5:  # the camera may ride with the salient thing, and leaves the others behind
        x = joined(x, layout.path.x)
    y = STILL if layout.kind == "ground" else bounded(rng, speed * 0.5, high * rng.uniform(0.05, 0.2))
    z = bounded(rng, speed * rng.uniform(0.05, 0.8), depth * rng.uniform(0.05, 0.3))
    path = Path((rng.uniform(-0.4, 0.4) * across, feet, depth), x, y, z)
    return mover(rng, layout, path, layout.height * depth * log_uniform(rng, 0.5, 1.1), label)
