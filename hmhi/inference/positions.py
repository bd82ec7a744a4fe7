"""Places in a video, by frame number or by time."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

from hmhi.errors import UserError


@dataclass(frozen=True)
class Position:
    """A place in a source: a frame number, or seconds."""

    frame: int | None = None
    seconds: float | None = None

    def reached(self, index: int, seconds: float | None) -> bool:
        """Whether a frame with this number and time stamp lies at the position or behind it."""
        if self.frame is not None:
            return index >= self.frame
        assert self.seconds is not None and seconds is not None
        return seconds >= self.seconds

    def __str__(self) -> str:
        return str(self.frame) if self.frame is not None else f"{self.seconds:g}s"


BEGIN = Position(frame=0)


def parse_position(text: int | str, name: str = "position") -> Position:
    """Read a frame number (``120`` or ``"120"``) or seconds (``"2.5s"``).

    Raises:
        UserError: Neither, or negative.
    """
    try:
        if isinstance(text, str) and text.endswith("s"):
            position = Position(seconds=float(text[:-1]))
        else:
            position = Position(frame=int(text) if isinstance(text, str) else operator.index(text))
    except (ValueError, TypeError):
        position = Position(frame=-1)
    value = position.seconds if position.frame is None else position.frame
    if value is None or not 0 <= value < math.inf:
        raise UserError(f"{name} must be a frame number from 0, or seconds such as 2.5s; got {text!r}")
    return position
