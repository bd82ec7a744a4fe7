"""The objects of a label image, and their boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def masks_of(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Id and mask, (H, W) bool, of each object of a label image, by rising id."""
    for number in np.unique(labels):
        if number > 0:
            yield int(number), labels == number


def bounding_box(mask: np.ndarray) -> list[int]:
    """Box [x, y, width, height] around a mask, (H, W) bool, that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
