"""Frames that go through the network together: of one video, or of several in step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from hmhi.inference.flow_stage import PreparedFrame
from hmhi.memory.bank import Memory


def chunks(frames: Iterable[PreparedFrame], size: int) -> Iterator[list[PreparedFrame]]:
    """Lists of `size` frames of one video; when its source fails, first those that came before."""
    chunk: list[PreparedFrame] = []
    try:
        for frame in frames:
            chunk.append(frame)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


@dataclass
class Batch:
    """Videos in step, and what the network remembers of them."""

    videos: list[int]
    """Numbers of the videos, in the order of the memory's rows, of which each has one for each view."""
    memory: Memory | None
    """None where they begin."""


def regroup(batches: Sequence[Batch], due: Mapping[int, PreparedFrame], views: int = 1) -> list[Batch]:
    """The batches of the videos that have a frame.

    A video at its first frame, or at a scene cut, begins anew, together with others whose network input is of its
    size. Batches become one when their memories hold frames of the same ages.

    Args:
        batches: Those of the frames before.
        due: Number of a video to its next frame.
        views: Rows of the memory that each video has.
    """
    going = [batch for batch in (_without_ended(batch, due, views) for batch in batches) if batch.videos]
    seen = {number for batch in going for number in batch.videos}
    alike: dict[object, list[Batch]] = {}
    for batch in going:
        assert batch.memory is not None  # each has been through the network
        key = due[batch.videos[0]].image_input.shape, batch.memory.ages
        alike.setdefault(key, []).append(batch)
    fresh: dict[torch.Size, Batch] = {}
    for number, frame in due.items():
        if number not in seen:
            fresh.setdefault(frame.image_input.shape, Batch([], None)).videos.append(number)
    return [*map(_join, alike.values()), *fresh.values()]


def _join(batches: Sequence[Batch]) -> Batch:
    first, *others = batches
    if not others:
        return first
    assert first.memory is not None
    memory = first.memory.join([batch.memory for batch in others if batch.memory is not None])
    return Batch([number for batch in batches for number in batch.videos], memory)


def _without_ended(batch: Batch, due: Mapping[int, PreparedFrame], views: int) -> Batch:
    """The videos of a batch that go on: those that neither end nor begin a new scene."""
    kept = [place for place, number in enumerate(batch.videos) if number in due and not due[number].scene_cut]
    if len(kept) == len(batch.videos) or batch.memory is None:
        return batch
    rows = [place * views + view for place in kept for view in range(views)]
    return Batch([batch.videos[place] for place in kept], batch.memory.rows(rows) if rows else None)
