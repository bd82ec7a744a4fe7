"""What lives in a synthetic world: figures, animals, vehicles, lumps, trees, fences.

A thing is a list of parts in drawing order, in thing coordinates (see `parts`).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from hmhi.synthetic.draws import log_uniform
from hmhi.synthetic.motion import Curve
from hmhi.synthetic.parts import Maker, Part, blob_outline, resized
from hmhi.synthetic.textures import horse_silhouette, noise


def blob(make: Maker) -> list[Part]:
    """One round or lumpy body."""
    rng = make.rng
    outline = blob_outline(rng, log_uniform(rng, 0.5, 2.5), 1.0, rng.uniform(0, 0.5))
    return [make.piece(outline, (0.0, -0.5))]


def polygon(make: Maker) -> list[Part]:
    """A convex or star-like polygon with up to two smaller ones on it."""
    rng = make.rng
    count = int(rng.integers(3, 9))
    angle = np.arange(count) * 2 * np.pi / count
    if rng.random() < 0.6:
        angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    radius = rng.uniform(0.25, 0.6, count)
    outline = np.stack([np.cos(angle) * log_uniform(rng, 0.7, 1.8), np.sin(angle)], axis=1) * radius[:, None]
    body = make.piece(outline, (0.0, -0.5))
    decals = [
        make.piece(outline * rng.uniform(0.2, 0.6), (rng.normal(0, 0.06), rng.normal(0, 0.06)), body, coat=1)
        for _ in range(int(rng.integers(0, 3)))
    ]
    return [body, *decals]


def biped(make: Maker) -> list[Part]:
    """A walking, running or dancing figure."""
    rng = make.rng
    rate = 2 * np.pi / log_uniform(rng, 12, 50)
    stride, phase = rng.uniform(0.1, 0.8), rng.uniform(0, 2 * np.pi)
    build = rng.uniform(0.75, 1.5)
    hip = -0.48
    torso = make.bone(
        0.28, 0.15 * build, 0.2 * build, (0, hip), rest=np.pi + rng.normal(0, 0.15),
        swing=_beat(0.06, 2 * rate, phase),
    )  # fmt: skip
    head = make.piece(
        blob_outline(rng, 0.13, 0.17, 0.1), (0, 0.4), torso, swing=_beat(0.1, rate, phase), coat=1
    )
    limbs: list[list[Part]] = []
    for side in (0.0, np.pi):
        thigh = make.bone(
            0.23, 0.11 * build, 0.08 * build, (0, hip), rest=rng.normal(0, 0.1),
            swing=_beat(stride, rate, phase + side), coat=2,
        )  # fmt: skip
        shank = make.bone(
            0.23, 0.08 * build, 0.05 * build, (0, 0.23), thigh, rest=-0.4 * stride,
            swing=_beat(0.6 * stride, rate, phase + side - 1.2), coat=2,
        )  # fmt: skip
        upper = make.bone(
            0.17, 0.08 * build, 0.06 * build, (0, 0.29), torso, rest=np.pi + rng.normal(0, 0.5),
            swing=_beat(stride, rate, phase + side + np.pi), coat=0,
        )  # fmt: skip
        fore = make.bone(
            0.17, 0.06 * build, 0.045 * build, (0, 0.17), upper, rest=rng.uniform(0, 1.2),
            swing=_beat(0.5 * stride, rate, phase + side), coat=1,
        )  # fmt: skip
        limbs.append([thigh, shank, upper, fore])
    far, near = limbs
    return [far[2], far[3], far[0], far[1], near[0], near[1], torso, head, near[2], near[3]]


def quadruped(make: Maker) -> list[Part]:
    """A four-legged animal with neck, head and tail."""
    rng = make.rng
    rate = 2 * np.pi / log_uniform(rng, 12, 50)
    stride, phase = rng.uniform(0.1, 0.7), rng.uniform(0, 2 * np.pi)
    length, thick = rng.uniform(0.55, 1.3), rng.uniform(0.25, 0.45)
    leg = rng.uniform(0.15, 0.3)
    back = -2 * leg - thick * 0.4
    trunk = make.piece(blob_outline(rng, length, thick, 0.15), (0, back), swing=_beat(0.05, rate, phase))
    gait = rng.choice([np.pi, 0.6])
    parts: list[list[Part]] = []
    for place, offset in ((-1, 0.0), (1, gait), (-1, np.pi), (1, gait + np.pi)):
        thigh = make.bone(
            leg, thick * 0.35, thick * 0.22, (place * (length / 2 - thick * 0.25), back + thick * 0.2),
            rest=rng.normal(0, 0.1), swing=_beat(stride, rate, phase + offset), coat=int(rng.integers(2)),
        )  # fmt: skip
        shank = make.bone(
            leg, thick * 0.2, thick * 0.13, (0, leg), thigh, rest=rng.normal(0, 0.15),
            swing=_beat(0.6 * stride, rate, phase + offset - 1.2), coat=1,
        )  # fmt: skip
        parts.append([thigh, shank])
    reach = rng.uniform(0.15, 0.6)
    neck = make.bone(
        reach, thick * 0.5, thick * 0.35, (length / 2 - thick * 0.2, -thick * 0.1), trunk,
        rest=np.pi + rng.uniform(0.1, 1.3), swing=_beat(0.1, rate, phase),
    )  # fmt: skip
    skull = blob_outline(rng, thick * 0.9, thick * 0.5, 0.15) + (thick * 0.25, 0)
    head = make.piece(
        skull, (0, reach), neck, rest=np.pi + rng.uniform(-0.8, 0.2), swing=_beat(0.15, rate, 0)
    )
    tail = make.bone(
        rng.uniform(0.15, 0.5), thick * 0.12, thick * 0.05, (-length / 2 + 0.03, -thick * 0.1), trunk,
        rest=rng.uniform(0.1, 1.5), swing=_beat(0.4, rate, phase), coat=1,
    )  # fmt: skip
    return [*parts[0], *parts[1], tail, trunk, neck, head, *parts[2], *parts[3]]


def silhouette(make: Maker) -> list[Part]:
    """The horse of scikit-image; what moves its legs is the deformation of the whole thing."""
    opacity = horse_silhouette()
    factor = make.scale / opacity.shape[0]
    opacity = cv2.resize(opacity, dsize=None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return [make.stamp(cv2.copyMakeBorder(opacity, 2, 2, 2, 2, cv2.BORDER_CONSTANT), 1.0, (0.0, 0.0))]


def vehicle(make: Maker) -> list[Part]:
    """A car, van or lorry on turning wheels."""
    rng = make.rng
    length, radius = rng.uniform(1.3, 3.0), rng.uniform(0.13, 0.24)
    sill, bonnet = -radius * 0.8, -rng.uniform(0.45, 0.8)
    front, rear = rng.uniform(0.05, 0.4) * length / 2, rng.uniform(0.3, 1.0) * length / 2
    half = length / 2
    body = make.piece(np.array([
        (-half, sill), (half, sill), (half, bonnet * 0.9), (front + 0.25, bonnet), (front, -1.0),
        (-rear, -1.0), (-half, bonnet),
    ]), (0, 0))  # fmt: skip
    window = np.array(
        [(front + 0.1, bonnet - 0.02), (front - 0.04, -0.93), (-rear * 0.8, -0.93), (-rear, bonnet - 0.02)]
    )
    glass = make.piece(window, (0, 0), body, coat=1)
    roll = Curve(drift=rng.choice([-1, 1]) * rng.uniform(0.02, 0.25))
    wheels = [
        make.piece(blob_outline(rng, 2 * radius, 2 * radius, 0), (x * half, -radius), swing=roll, coat=2)
        for x in (-rng.uniform(0.5, 0.75), rng.uniform(0.5, 0.75))
    ]
    return [body, glass, *wheels]


def cycle(make: Maker) -> list[Part]:
    """Two wheels to look through and a thin frame."""
    rng = make.rng
    radius, base = rng.uniform(0.4, 0.5), rng.uniform(0.95, 1.3)
    roll = Curve(drift=rng.choice([-1, 1]) * rng.uniform(0.02, 0.25))
    tyre = rng.uniform(0.04, 0.16)
    wheels = [
        make.ring(radius, tyre, (x * base / 2, -radius), roll, int(rng.integers(0, 6))) for x in (-1, 1)
    ]
    bars = []
    nodes = [(-base / 2, -radius), (0.0, -radius), (-0.15, -0.95), (base * 0.35, -0.9), (base / 2, -radius)]
    for first, second in ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4)):
        (x0, y0), (x1, y1) = nodes[first], nodes[second]
        angle, length = -np.arctan2(x1 - x0, y1 - y0), np.hypot(x1 - x0, y1 - y0)
        bars.append(make.bone(length, 0.07, 0.05, (x0, y0), rest=angle))
    return [*wheels, *bars]


def rider(make: Maker) -> list[Part]:
    """A figure on an animal, a cycle or a vehicle; both are one thing."""
    rng = make.rng
    mount = [quadruped, cycle, vehicle][rng.choice(3, p=[0.4, 0.45, 0.15])](make)
    person = biped(Maker(rng, make.scale))
    return [
        *resized(mount, 0.62, (0, 0)),
        *resized(person, rng.uniform(0.55, 0.7), (rng.normal(0, 0.05), -0.33)),
    ]


def swimmer(make: Maker) -> list[Part]:
    """A long body with a beating tail and fins."""
    rng = make.rng
    length, rate = rng.uniform(1.5, 3.0), 2 * np.pi / rng.uniform(10, 35)
    body = make.piece(blob_outline(rng, length, 0.8, 0.1), (0, -0.5))
    fin = np.array([(0, 0), (-0.6, -0.45), (-0.45, 0), (-0.6, 0.45)])
    tail = make.piece(fin, (-length / 2 + 0.05, 0), body, swing=_beat(0.6, rate, 0), coat=1)
    side = make.bone(0.4, 0.15, 0.05, (length * 0.1, 0.2), body, rest=0.6, swing=_beat(0.5, rate, 1), coat=1)
    return [tail, body, side]


def flyer(make: Maker) -> list[Part]:
    """A body between two flapping wings."""
    rng = make.rng
    rate = 2 * np.pi / rng.uniform(8, 30)
    body = make.piece(blob_outline(rng, rng.uniform(0.4, 1.0), 0.3, 0.1), (0, -0.5))
    span, chord = rng.uniform(0.5, 1.1), rng.uniform(0.2, 0.45)
    wing = np.array([(0, -chord / 2), (span, -chord / 6), (span * 0.9, chord / 4), (0, chord / 2)])
    wings = [
        make.piece(wing * (sign, 1), (0, 0), body, rest=-sign * 0.3, swing=_beat(sign * 0.6, rate, 0), coat=1)
        for sign in (-1, 1)
    ]
    return [wings[0], body, wings[1]]


def compound(make: Maker) -> list[Part]:
    """A random tree of lumps and limbs: the variety that no list of animals has."""
    rng = make.rng
    rate = 2 * np.pi / log_uniform(rng, 12, 60)
    core = make.piece(blob_outline(rng, rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.7), 0.3), (0, -0.5))
    parts = [core]
    for _ in range(int(rng.integers(1, 8))):
        parent = parts[rng.integers(len(parts))]
        joint = tuple(rng.normal(0, 0.15, 2)) if parent is core else (0.0, rng.uniform(0, 0.25))
        swing = _beat(rng.uniform(0, 0.7), rate, rng.uniform(0, 2 * np.pi))
        rest, coat = rng.uniform(0, 2 * np.pi), int(rng.integers(3))
        if rng.random() < 0.6:
            thick = log_uniform(rng, 0.03, 0.25)
            length, tip = rng.uniform(0.15, 0.5), thick * rng.uniform(0.4, 1.2)
            parts.append(make.bone(length, thick, tip, joint, parent, rest, swing, coat))
        else:
            outline = blob_outline(rng, rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.5), 0.3)
            parts.append(make.piece(outline, joint, parent, rest, swing, coat))
    order = rng.permutation(len(parts))
    return [parts[i] for i in order]


def tree(make: Maker) -> list[Part]:
    """A trunk under ragged foliage, for the standing scenery."""
    rng = make.rng
    side = max(16, round(make.scale * 0.7))
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ragged = noise(rng, (side, side), cells=int(rng.integers(3, 9))) + 0.9 - np.hypot(x, y) * 1.1
    opacity = (np.clip((ragged - 0.5) * 8, 0, 1) * 255).astype(np.uint8)
    opacity[[0, -1]] = opacity[:, [0, -1]] = 0
    trunk = make.bone(0.6, rng.uniform(0.03, 0.12), rng.uniform(0.05, 0.15), (0, -0.6), coat=1)
    return [trunk, make.stamp(opacity, 0.7, (0.0, -0.3))]


def posts(make: Maker) -> list[Part]:
    """A pole, or a fence of poles and rails."""
    rng = make.rng
    count, gap, thick = int(rng.integers(1, 6)), rng.uniform(0.25, 0.8), rng.uniform(0.02, 0.12)
    poles = [make.bone(1.0, thick, thick, (i * gap, -1.0)) for i in range(count)]
    rails = [
        make.bone((count - 1) * gap, thick, thick, (0, y), rest=-np.pi / 2, coat=1)
        for y in (-0.85, -0.4)
        if count > 1
    ]
    return [*rails, *poles]


def rock(make: Maker) -> list[Part]:
    """A lump or block that stands on the ground."""
    rng = make.rng
    if rng.random() < 0.4:
        wide = rng.uniform(0.3, 1.5)
        outline = np.array([(-wide, 0), (wide, 0), (wide, -1), (-wide, -1)])
    else:
        outline = blob_outline(rng, rng.uniform(0.8, 2.5), 1.0, 0.3) + (0, -0.4)
    return [make.piece(outline, (0, 0))]


Kinds = dict[Callable[[Maker], list[Part]], float]

CREATURES: Kinds = {
    biped: 0.22, quadruped: 0.18, rider: 0.12, vehicle: 0.11, compound: 0.1, blob: 0.07, silhouette: 0.05,
    polygon: 0.04, swimmer: 0.04, flyer: 0.04, cycle: 0.03,
}  # fmt: skip
"""What may move, and how often."""

SCENERY: Kinds = {
    tree: 0.35, rock: 0.25, posts: 0.2, blob: 0.05, polygon: 0.05, vehicle: 0.04, biped: 0.03, quadruped: 0.03,
}  # fmt: skip
"""What may stand still, and how often."""


def random_thing(rng: np.random.Generator, kinds: Kinds, scale: float) -> list[Part]:
    """Draw a thing of one of the kinds, at `scale` canvas pixels for its height."""
    weights = np.array(list(kinds.values()))
    kind = list(kinds)[rng.choice(len(weights), p=weights / weights.sum())]
    return kind(Maker(rng, scale))


def _beat(amplitude: float, rate: float, phase: float) -> Curve:
    return Curve(0.0, (amplitude,), (rate,), (phase,))
