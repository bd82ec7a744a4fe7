"""What a prompted model remembers of the objects of a video. Values, as the banks are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hmhi.errors import UserError
from hmhi.memory.bank import MemoryBank


@dataclass(frozen=True)
class Group:
    """Objects that were first given at the same frame, with banks of their own."""

    start: int
    """Number of that frame in the video."""
    ids: tuple[int, ...]
    """The user's numbers of the objects; object i is row i of the banks."""
    banks: Mapping[str, MemoryBank]
    """Name of a level to its bank."""

    def without(self, ids: Collection[int]) -> Group:
        """The group when some objects have been removed."""
        kept = [row for row, number in enumerate(self.ids) if number not in ids]
        banks = {name: bank.rows(kept) for name, bank in self.banks.items()}
        return replace(self, ids=tuple(self.ids[row] for row in kept), banks=banks)


@dataclass(frozen=True)
class ObjectState:
    """Where a prompted model stands in a video."""

    frame: int = 0
    """Frames seen so far."""
    size: tuple[int, int] | None = None
    """(H, W) of the video; None before the first frame."""
    groups: tuple[Group, ...] = ()
    """In the order of their first frames."""
    shared: Mapping[str, MemoryBank] = field(default_factory=dict)
    """Banks of the video as a whole, not of a group."""
    context: Any = None
    """What the model derived from groups and shared banks; None where either has changed since."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects that are followed, in the order of the model's results."""
        return tuple(number for group in self.groups for number in group.ids)

    def without(self, ids: Collection[int]) -> ObjectState:
        """The state when some objects have been removed.

        Raises:
            UserError: One of the numbers is none of `ids`.
        """
        if unknown := sorted(set(ids) - set(self.ids)):
            raise UserError(f"no object has the number {unknown[0]}; there are {list(self.ids)}")
        left = tuple(group.without(ids) for group in self.groups)
        return replace(self, groups=tuple(group for group in left if group.ids), context=None)
