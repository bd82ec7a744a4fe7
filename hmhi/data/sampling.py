"""Choose the frames of a training clip."""

from __future__ import annotations

from collections.abc import Sequence

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
    _check_counts(n_frames, clip_frames)
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


def sample_gaps(
    n_frames: int, clip_frames: int, rng: np.random.Generator, max_skip: int, step: int = 1
) -> list[int]:
    """Draw a clip by the gaps between its frames (STM, HMMN section 4.1): each gap skips 0 to `max_skip` frames.

    Args:
        n_frames: Annotated frames of the video, at least 1.
        clip_frames: Frames to draw, at least 1.
        rng: Source of every draw.
        max_skip: Most frames of the source that lie between two neighbours of the clip.
        step: Frames of the source from one annotated frame to the next; 5 in YouTube-VOS.

    Returns:
        `clip_frames` numbers of annotated frames in increasing order. In a video that is too short for the gaps they
        are smaller; one of fewer frames than the clip repeats its last.
    """
    _check_counts(n_frames, clip_frames)
    if n_frames <= clip_frames:
        return list(range(n_frames)) + [n_frames - 1] * (clip_frames - n_frames)
    room = n_frames - clip_frames
    skips = rng.integers(0, max_skip // step + 1, clip_frames - 1)
    if skips.sum() > room:
        skips = rng.integers(0, room // (clip_frames - 1) + 1, clip_frames - 1)
    first = int(rng.integers(room - skips.sum() + 1))
    return (first + np.cumsum([0, *(skips + 1)])).tolist()


def sample_reach(
    n_frames: int, clip_frames: int, rng: np.random.Generator, max_skip: int, step: int = 1
) -> list[int]:
    """Draw a clip of frames that each lie near some other one (STCN's and XMem's rule).

    The first pick is uniform over the video; each later one is uniform over the frames not yet picked that lie within
    `max_skip` of any pick. Arguments and result are those of `sample_gaps`.
    """
    _check_counts(n_frames, clip_frames)
    if n_frames <= clip_frames:
        return list(range(n_frames)) + [n_frames - 1] * (clip_frames - n_frames)
    reach = max(max_skip // step, 1)
    picked = [int(rng.integers(n_frames))]
    while len(picked) < clip_frames:
        near = {n for pick in picked for n in range(max(pick - reach, 0), min(pick + reach + 1, n_frames))}
        free = sorted(near - set(picked))
        picked.append(free[int(rng.integers(len(free)))])
    return sorted(picked)


def skip_at(curriculum: Sequence[Sequence[float]], progress: float, default: int) -> int:
    """Largest skip at a point of the run.

    Args:
        curriculum: Pairs of progress, increasing from 0, and the largest skip from there on.
        progress: 0 at the start of the run, 1 at its end.
        default: What an empty curriculum gives.
    """
    reached = [int(skip) for start, skip in curriculum if start <= progress]
    return reached[-1] if reached else default


def _check_counts(n_frames: int, clip_frames: int) -> None:
    if n_frames < 1 or clip_frames < 1:
        raise ValueError(f"cannot draw {clip_frames} frames from a video of {n_frames}")
