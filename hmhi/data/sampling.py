"""Choose the frames of a training clip."""

from __future__ import annotations

import numpy as np


def sample_clip(n_frames: int, clip_frames: int, rng: np.random.Generator, max_gap: int = 7) -> list[int]:
    """Draw increasing frame numbers that lie near each other.

    The first pick is uniform over the video. Each later one is uniform over a window of the frames not yet
    picked: their list positions from ``last - max_gap`` up to, not including, ``last + max_gap``, where
    ``last`` is the number of the previous pick; the list's final entry stays outside the window, and where
    the window is empty the whole list takes its place. This is the release's rule. A window therefore
    reaches ``max_gap`` frames back, and forward ``max_gap - 1`` frames plus one for each pick so far.

    Args:
        n_frames: Frames of the video, at least 1.
        clip_frames: Frames to draw, at least 1.
        rng: Source of every draw.
        max_gap: Half width of the window in frames.

    Returns:
        ``clip_frames`` frame numbers in increasing order. A video that is too short gives all its frames
        and then repeats the last one.
    """
    if n_frames < 1 or clip_frames < 1:
        raise ValueError(f"cannot draw {clip_frames} frames from a video of {n_frames}")
    if n_frames <= clip_frames:
        return list(range(n_frames)) + [n_frames - 1] * (clip_frames - n_frames)
    last = int(rng.integers(n_frames))
    picked, remaining = [last], [i for i in range(n_frames) if i != last]
    while len(picked) < clip_frames:
        window = remaining[max(last - max_gap, 0) : min(last + max_gap, len(remaining) - 1)] or remaining
        last = window[int(rng.integers(len(window)))]
        picked.append(last)
        remaining.remove(last)
    return sorted(picked)
