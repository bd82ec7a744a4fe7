"""The order of frames: by the numbers in their names, padded or not, so that 9.jpg goes before 10.jpg."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name", str, Path)


def frame_key(stem: str) -> tuple[object, ...]:
    """Sort key of a frame by its stem: runs of digits count as numbers, all else as text.

    Stems that differ only in leading zeros (``7``, ``007``) keep one order, that of their texts.
    """
    parts: list[object] = [*re.split(r"([0-9]+)", stem)]
    # A number as its length and digits: int() refuses the thousands of digits that a zip file's names may have.
    parts[1::2] = [(len(digits), digits) for digits in (str(run).lstrip("0") for run in parts[1::2])]
    return tuple(parts), stem


def in_order(names: Iterable[Name]) -> list[Name]:
    """Sort stems (str) or files (paths, by their stems) into the order of frames."""
    return sorted(names, key=lambda name: frame_key(name if isinstance(name, str) else name.stem))
