"""The memory of one video: a first-in-first-out bank of frames for each encoder stage that has one.

Both classes are values, not state: writing returns a new object and leaves the old one as it was. Two videos
can therefore never meet, a step can be repeated, and dropping the object frees everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class BankPolicy:
    """Which frames a bank keeps (paper section 3.4)."""

    frames: int = 5
    """T: frames held before the oldest is dropped."""
    interval: int = 1
    """k: every k-th frame is written, frame 0 included."""

    def writes(self, frame: int) -> bool:
        """Whether frame number `frame` of a video, from 0, is kept."""
        return frame % self.interval == 0


@dataclass(frozen=True)
class MemoryBank:
    """Projected keys and values of the last frames of one stage, oldest first.

    Attributes:
        limit: Frames held before the oldest is dropped.
        frame_keys: One (B, h * w, C) tensor for each frame held.
        frame_values: The same for values.
    """

    limit: int
    frame_keys: tuple[Tensor, ...] = ()
    frame_values: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Frames held."""
        return len(self.frame_keys)

    @property
    def keys(self) -> Tensor:
        """(B, M, C) keys of all frames, M = len(self) * h * w."""
        return torch.cat(self.frame_keys, dim=1)

    @property
    def values(self) -> Tensor:
        """(B, M, C) values of all frames."""
        return torch.cat(self.frame_values, dim=1)

    def append(self, key: Tensor, value: Tensor) -> MemoryBank:
        """The bank with one frame more, and without its oldest where the limit is passed.

        Args:
            key: (B, h * w, C).
            value: (B, h * w, C).

        Raises:
            ValueError: The frame's batch or grid differs from that of the frames held.
        """
        if self.frame_keys and key.shape != self.frame_keys[-1].shape:
            raise ValueError(
                f"memory holds frames of shape {tuple(self.frame_keys[-1].shape)} (batch, cells, channels), "
                f"got {tuple(key.shape)}; start a new memory when the frame size or the batch changes"
            )
        return replace(
            self,
            frame_keys=(*self.frame_keys, key)[-self.limit :],
            frame_values=(*self.frame_values, value)[-self.limit :],
        )

    def rows(self, kept: Sequence[int]) -> MemoryBank:
        """The bank of some videos of the batch, in the order given."""
        index = list(kept)
        return replace(
            self,
            frame_keys=tuple(key[index] for key in self.frame_keys),
            frame_values=tuple(value[index] for value in self.frame_values),
        )


@dataclass(frozen=True)
class Memory:
    """All that a model remembers of one video (or of a batch of videos in step).

    Attributes:
        frame: Frames seen so far.
        banks: Encoder stage (1-4) to its bank.
    """

    frame: int = 0
    banks: Mapping[int, MemoryBank] = field(default_factory=dict)

    def rows(self, kept: Sequence[int]) -> Memory:
        """The memory of some videos of the batch, in the order given."""
        return replace(self, banks={stage: bank.rows(kept) for stage, bank in self.banks.items()})
