"""Live video: one frame at a time, each segmented when it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hmhi.errors import UserError
from hmhi.inference.results import FrameResult
from hmhi.media.pictures import to_rgb
from hmhi.memory.bank import Memory

if TYPE_CHECKING:
    from hmhi.inference.segmenter import VideoSegmenter


class VideoSession:
    """A live video: each frame is segmented at once, without waiting for the one after it.

    Made by `VideoSegmenter.session`. Flow is minus that from a frame to the one before; the first frame shows no
    motion. (`VideoSegmenter.stream` reads flow as in training, and is the better choice where one frame of delay
    does no harm.)
    """

    def __init__(self, segmenter: VideoSegmenter) -> None:
        self._segmenter = segmenter
        self._index = 0
        self._previous: np.ndarray | None = None
        self._memory: Memory | None = None

    def step(self, frame: np.ndarray) -> FrameResult:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, or what `hmhi.media.pictures.to_rgb` makes such.

        Raises:
            UserError: Not such a frame, of another size than the one before, or its flow cannot be computed; the
                video goes on as if the frame had not been given.
        """
        before = None if self._previous is None else self._previous.shape
        image = check_frame(frame, self._index, before)
        segmenter = self._segmenter
        prepared = segmenter.stage.live(self._index, image, self._previous)
        features, seconds = segmenter.encode([prepared])
        (result,), self._memory = segmenter.advance([prepared], features, self._memory, seconds)
        self._index, self._previous = self._index + 1, image
        return result


def check_frame(frame: np.ndarray, index: int, before: tuple[int, ...] | None) -> np.ndarray:
    """The next frame of a live video as (H, W, 3) uint8 RGB, a copy.

    Args:
        frame: What `hmhi.media.pictures.to_rgb` takes.
        index: Its number.
        before: Shape of the frame before it; None for the first one.

    Raises:
        UserError: Not a frame, or of another size than the one before.
    """
    try:
        image = to_rgb(frame).copy()  # a live loop may fill one buffer again and again
    except ValueError as error:
        raise UserError(f"frame {index}: {error}") from None
    if before is not None and before != image.shape:
        raise UserError(
            f"frame {index} has shape {image.shape}, but the one before {before}; begin another session, or call "
            f"reset(), when another video begins"
        )
    return image
