"""What a segmenter says of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """Objects of one frame, at the size of the source. H W pixels, K objects."""

    index: int
    """Number of the frame in the source, from 0."""
    time: float | None
    """Time stamp in seconds; None where the source has none."""
    frame: np.ndarray
    """(H, W, 3) uint8: the frame itself, a copy."""
    labels: np.ndarray
    """(H, W) uint8: id of the object at each pixel, 0 for background."""
    ids: tuple[int, ...]
    """Ids of the objects that are followed, whether the frame shows them or not; (1,) for the salient object."""
    probs: np.ndarray
    """(K, H, W) float32 in [0, 1]: probability of each object, in the order of `ids`."""
    flow: np.ndarray | None
    """(h, w, 3) uint8: the flow picture that was read; None where the network reads none. Stored flow keeps the size
    it is stored in, DIS of large frames that it works on."""
    seconds: Mapping[str, float]
    """Time that ``decode``, ``flow`` (each with resizing) and ``network`` took for this frame. The stages overlap,
    so a frame takes less than their sum; on a GPU, the first frame of a batch waits for its encoding."""
    scene_cut: bool
    """Whether the frame was taken for the first one of a new scene, so that its memory began anew."""
    given: tuple[int, ...] = ()
    """Ids of the objects whose mask was given for this frame, new or corrected."""

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool: all objects; may be empty."""
        return self.labels > 0

    @property
    def prob(self) -> np.ndarray:
        """(H, W) float32 in [0, 1]: probability of any object."""
        return self.probs[0] if len(self.ids) == 1 else self.probs.sum(axis=0)

    def mask_of(self, object_id: int) -> np.ndarray:
        """(H, W) bool: one object, by its id."""
        return self.labels == object_id

    def prob_of(self, object_id: int) -> np.ndarray:
        """(H, W) float32 in [0, 1]: probability of one object, by its id."""
        return self.probs[self.ids.index(object_id)]


def to_levels(prob: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] to uint8, rounded down as the release does."""
    return (prob * 255).astype(np.uint8)
