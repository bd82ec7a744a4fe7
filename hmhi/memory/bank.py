"""The memory of a video: banks of slots, one slot for each frame that is kept.

Everything here is a value, not state: writing returns a new object and leaves the old one as it was. Two videos
can therefore never meet, a step can be repeated, and dropping the object frees everything.

R rows (videos of a batch, or objects), h w cells of a grid, C channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class BankPolicy:
    """Which frames a bank keeps, and which it drops when it is full."""

    frames: int = 5
    """T: most slots that persist; 0 sets no limit. Each pinned slot beyond the first raises it by one."""
    interval: int = 1
    """k: every k-th frame of the video persists, frame 0 included."""
    pin_first: bool = False
    """Whether the first slot of the bank is never dropped."""
    previous: bool = False
    """Whether the newest frame is visible until the next one comes, even where it does not persist."""
    persist: bool = True
    """False: nothing persists but pinned slots."""
    evict: Literal["oldest", "least_used"] = "oldest"
    """Which slot goes. `least_used` compares use / life and spares slots that no frame has read yet."""

    def persists(self, frame: int) -> bool:
        """Whether frame number `frame` of a video, from 0, stays beyond the next frame."""
        return self.persist and frame % self.interval == 0

    def writes(self, frame: int) -> bool:
        """Whether a bank takes frame number `frame` at all. Pinned slots are always taken."""
        return self.previous or self.persists(frame)


@dataclass(frozen=True)
class Slot:
    """What a bank holds of one frame."""

    frame: int
    """Number of the frame in the video, from 0."""
    grid: tuple[int, int]
    """(h, w) cells of the frame."""
    tensors: Mapping[str, Tensor]
    """Name to (R, h * w, ...), cells row-major."""
    pinned: bool = False
    """Never dropped."""
    passing: bool = False
    """Dropped when the next frame is appended."""
    use: float | Tensor = 0.0
    """Attention that the slot has received so far; a tensor without dimensions, so that no read waits for it."""
    life: int = 0
    """Frames that have read the slot."""

    @property
    def rows(self) -> int:
        """R."""
        return next(iter(self.tensors.values())).shape[0]  # `len` would bind an exported graph to a number


@dataclass(frozen=True)
class MemoryBank:
    """Slots of one video, or of several videos in step, and the policy that rules them."""

    policy: BankPolicy
    slots: tuple[Slot, ...] = ()
    """Oldest first."""

    def __len__(self) -> int:
        """Slots that a reader sees."""
        return len(self.slots)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame number of each slot."""
        return tuple(slot.frame for slot in self.slots)

    def joined(self, name: str) -> Tensor:
        """(R, len(self) * h * w, ...): a tensor of all slots, oldest first."""
        return torch.cat([slot.tensors[name] for slot in self.slots], dim=1)  # (R, len(self) * h * w, ...)

    def append(self, slot: Slot) -> MemoryBank:
        """The bank after a frame: with its slot where the policy takes it, without what has to go.

        Raises:
            ValueError: The slot's rows or grid differ from those of the slots held.
        """
        self.check(slot.rows, slot.grid)
        policy = self.policy
        pinned = slot.pinned or (policy.pin_first and not self.slots)
        slots = tuple(held for held in self.slots if not held.passing)
        if pinned or policy.persists(slot.frame):
            slots = _evict((*slots, replace(slot, pinned=pinned)), policy)
        elif policy.previous:
            slots = (*slots, replace(slot, passing=True))
        return replace(self, slots=slots)

    def check(self, rows: int, grid: tuple[int, int]) -> None:
        """Compare a frame with the frames held.

        Raises:
            ValueError: The number of rows or the grid differs; grids of as many cells are no exception.
        """
        if not self.slots:
            return
        held = self.slots[-1]
        if (held.rows, held.grid) != (rows, tuple(grid)):
            raise ValueError(
                f"the memory holds {held.rows} rows on a grid of {held.grid[0]}x{held.grid[1]} cells, but this "
                f"frame has {rows} on {grid[0]}x{grid[1]}; start a new memory when the frame size or the batch "
                f"changes"
            )

    def rows(self, kept: Sequence[int]) -> MemoryBank:
        """The bank of some rows, in the order given."""
        index = list(kept)

        def select(slot: Slot) -> Slot:
            return replace(slot, tensors={name: tensor[index] for name, tensor in slot.tensors.items()})

        return replace(self, slots=tuple(select(slot) for slot in self.slots))

    def with_tensor(self, name: str, tensors: Sequence[Tensor]) -> MemoryBank:
        """The bank with a tensor, (R, h * w, ...), added to or replaced in each slot, oldest first."""
        slots = tuple(
            replace(slot, tensors={**slot.tensors, name: tensor})
            for slot, tensor in zip(self.slots, tensors, strict=True)
        )
        return replace(self, slots=slots)

    def pinned_at(self, frames: Collection[int]) -> MemoryBank:
        """The bank where the slots of these frames are pinned, and no others."""
        return replace(self, slots=tuple(replace(slot, pinned=slot.frame in frames) for slot in self.slots))

    def used(self, attention: Sequence[float | Tensor]) -> MemoryBank:
        """The bank after a read that gave each slot, oldest first, so much attention."""
        slots = tuple(
            replace(slot, use=slot.use + amount, life=slot.life + 1)
            for slot, amount in zip(self.slots, attention, strict=True)
        )
        return replace(self, slots=slots)


def _evict(slots: tuple[Slot, ...], policy: BankPolicy) -> tuple[Slot, ...]:
    """Drop slots where there are too many. The newest goes only where all others are spared."""
    limit = policy.frames + max(0, sum(slot.pinned for slot in slots) - 1)
    while policy.frames > 0 and len(slots) > limit:
        free = [i for i, slot in enumerate(slots) if not slot.pinned]
        victim = free[0]
        if policy.evict == "least_used" and (read := [i for i in free if slots[i].life > 0]):
            victim = min(read, key=lambda i: slots[i].use / slots[i].life)
        slots = slots[:victim] + slots[victim + 1 :]
    return slots


@dataclass(frozen=True)
class Memory:
    """All that HMHI-Net remembers of one video, or of a batch of videos in step."""

    frame: int = 0
    """Frames seen so far."""
    banks: Mapping[int, MemoryBank] = field(default_factory=dict)
    """Encoder stage (1-4) to its bank."""

    @property
    def ages(self) -> tuple[tuple[int, ...], ...]:
        """How many frames ago each slot of each bank was written; memories of equal ages can be joined."""
        return tuple(tuple(self.frame - frame for frame in bank.frames) for bank in self.banks.values())

    def rows(self, kept: Sequence[int]) -> Memory:
        """The memory of some videos of the batch, in the order given."""
        return replace(self, banks={stage: bank.rows(kept) for stage, bank in self.banks.items()})

    def join(self, others: Sequence[Memory]) -> Memory:
        """The memory of this batch and of others, whose `ages` are the same; frames are numbered as in this one."""
        banks = {
            stage: replace(bank, slots=tuple(map(_join_slots, bank.slots, *(m.banks[stage].slots for m in others))))
            for stage, bank in self.banks.items()
        }  # fmt: skip
        return replace(self, banks=banks)


def _join_slots(first: Slot, *others: Slot) -> Slot:
    slots = (first, *others)
    tensors = {name: torch.cat([slot.tensors[name] for slot in slots]) for name in first.tensors}
    return replace(first, tensors=tensors)
