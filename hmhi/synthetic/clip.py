"""Rendering a clip of a synthetic world: frames, masks and flow from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmhi.errors import UserError
from hmhi.flow.compensate import join_directions
from hmhi.flow.estimate import build_estimator
from hmhi.media.files import MAX_PIXELS
from hmhi.synthetic.effects import degrade, draw_estimator, draw_lens, photograph
from hmhi.synthetic.render import paint
from hmhi.synthetic.scene import build_scene

FLOWS = ("exact", "degraded", "dis", "mixed")
MAX_OBJECTS = 4
_MIX = {"exact": 0.25, "degraded": 0.45, "dis": 0.3}


@dataclass(frozen=True)
class SyntheticClip:
    """A rendered clip of T frames."""

    images: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    labels: np.ndarray
    """(T, H, W) uint8: 0, or the id of the mover in front, from 1 on; first the salient ones, then further ones."""
    masks: np.ndarray
    """(T, H, W) uint8, 1 where a label is: on the salient thing, unless further objects were asked for."""
    flows: np.ndarray
    """(T, H, W, 2) float32 in pixels, x then y, from each frame to the one after it in time; the last one
    leads to a frame that is not part of the clip."""


def render_clip(
    seed: int, frames: int, size: tuple[int, int], flow: str = "exact", stride: int = 1, clean: bool = False,
    join: str | None = None, objects: int = 0,
) -> SyntheticClip:  # fmt: skip
    """Render a random world.

    The same arguments always give the same clip.

    Args:
        seed: Names the world.
        frames: Number T of frames.
        size: Height and width in pixels.
        flow: ``exact`` as rendered; ``degraded`` with the faults of a random estimator; ``dis`` estimated by
            OpenCV on the rendered frames; ``mixed`` draws one of the three for each clip.
        stride: Time between the frames of the clip; flow always spans one unit of time, as it does in a
            video from which every `stride`-th frame was picked.
        clean: Leave out lens, sensor and codec: frames exactly as painted.
        join: Camera compensation with which ``dis`` flow joins both directions of time
            (`hmhi.flow.compensate.join_directions`); None for the forward one.
        objects: Movers with a label of their own that there are at least, up to `MAX_OBJECTS`. The salient thing or
            group is 1 to 3 of them, and the rest joins the world of the seed; with 0 or 1 it stays as it is.

    Raises:
        UserError: An argument is out of range.
    """
    check_request(seed, frames, size, flow, stride, objects)
    # Independent streams: whatever the flow, the same seed shows the same world.
    world, optics, errors, choice = (np.random.default_rng([seed, stream]) for stream in range(4))
    further = np.random.default_rng([seed, 6])
    scene = build_scene(world, size, (frames - 1) * stride, objects, further)
    lens = draw_lens(optics)
    if flow == "mixed":
        flow = str(choice.choice(list(_MIX), p=list(_MIX.values())))
    faults = draw_estimator(errors)
    dis = build_estimator("dis") if flow == "dis" else None

    def shoot(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        painting = paint(scene.surfaces(t), t, size)
        if clean:
            return painting.image.astype(np.uint8), painting.label, painting.flow
        # A stream for each time: a frame looks the same whichever frames were shot before.
        sensor = np.random.default_rng([seed, 4, t] if t >= 0 else [seed, 5, -t])
        return photograph(sensor, painting.image, painting.flow, lens, t), painting.label, painting.flow

    images: list[np.ndarray] = []
    labels, flows = [], []
    ahead = shoot(0)
    for index in range(frames):
        t = index * stride
        image, label, motion = ahead
        if dis is not None:
            follower = shoot(t + 1)
            motion = dis(image, follower[0])
            if join is not None:
                before = images[-1] if index and stride == 1 else shoot(t - 1)[0]
                motion = join_directions(motion, dis(image, before), join)
        elif flow == "degraded":
            motion = degrade(errors, motion, faults)
        images.append(image)
        labels.append(label)
        flows.append(motion)
        if index + 1 < frames:
            ahead = follower if dis is not None and stride == 1 else shoot(t + stride)
    ids = np.stack(labels)
    return SyntheticClip(np.stack(images), ids, (ids > 0).astype(np.uint8), np.stack(flows))


def check_request(
    seed: int, frames: int, size: tuple[int, int], flow: str, stride: int = 1, objects: int = 0
) -> None:
    """Refuse what `render_clip` cannot draw.

    Raises:
        UserError: An argument is out of range.
    """
    if seed < 0 or frames < 1 or stride < 1 or min(size) < 32:
        raise UserError(
            "need a seed from 0, at least 1 frame, stride 1 and 32 x 32 pixels, got "
            f"seed={seed}, frames={frames}, stride={stride}, size={size}"
        )
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"frames of {size[0]} x {size[1]} pixels are too large to render")
    if not 0 <= objects <= MAX_OBJECTS:
        raise UserError(f"need 0 to {MAX_OBJECTS} objects, got {objects}")
    if flow not in FLOWS:
        raise UserError(f"unknown synthetic flow {flow!r}; choose one of {', '.join(FLOWS)}")
