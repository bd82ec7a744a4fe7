"""Which neighbours a frame's flow comes from, and what a frame without them shows.

Training, validation, `make_flow` and inference all follow these rules:

- flow leads from a frame to the next one;
- the last frame has no next one, and takes the flow of the frame before it;
- a video of one frame shows no motion, which is white;
- where both directions are joined, a frame with both neighbours shows what moves relative to the camera towards
  both of them (`hmhi.flow.compensate.join_directions`), the first frame its forward flow, and the last one minus
  its backward flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.compensate import join_directions


def flow_start(number: int, frames: int, step: int = 1) -> int:
    """Number of the frame whose flow frame `number` shows: its own, or that of the frame before the last one.

    Args:
        number: Of the frame, from 0.
        frames: Of the video, 2 or more.
        step: 1 for flow to the next frame; -1 for flow to the previous one, where the first frame is the last.
    """
    return number if 0 <= number + step < frames else number - step


def complete_maps(stems: Sequence[str], maps: Mapping[str, Path]) -> dict[str, Path]:
    """Stored maps of a video by stem; the last frame takes the map before it where its own is missing.

    Args:
        stems: Of the frames, in order.
        maps: Stem to file.
    """
    complete = dict(maps)
    if len(stems) > 1 and stems[-1] not in maps and stems[-2] in maps:
        complete[stems[-1]] = maps[stems[-2]]
    return complete


def still_picture(frame: np.ndarray) -> np.ndarray:
    """Flow picture of a frame in which nothing moves: white, of the frame's shape, uint8."""
    return np.full_like(frame, 255)


def flow_picture(
    forward: np.ndarray | None, backward: np.ndarray | None, join: str | None
) -> np.ndarray | None:
    """Flow picture of a frame from its flow to the neighbours that it has.

    Args:
        forward: (H, W, 2) float32 flow to the next frame; None where there is none.
        backward: (H, W, 2) float32 flow to the previous frame; None where there is none.
        join: Camera compensation with which both directions are joined; None reads the forward one only.

    Returns:
        (H, W, 3) uint8 colour wheel; None where the frame takes the picture of the frame before it.
    """
    if join is not None and backward is not None:
        return flow_to_rgb(join_directions(forward, backward, join))
    return None if forward is None else flow_to_rgb(forward)
