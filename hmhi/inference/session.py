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
        try:
            image = to_rgb(frame).copy()  # a live loop may fill one buffer again and again
        except ValueError as error:
            raise UserError(f"frame {self._index}: {error}") from None
        if self._previous is not None and self._previous.shape != image.shape:
            raise UserError(
                f"frame {self._index} has shape {image.shape}, but the one before {self._previous.shape}; begin "
                f"another session, or call reset(), when another video begins"
            )
        segmenter = self._segmenter
        prepared = segmenter.stage.live(self._index, image, self._previous)
        features, seconds = segmenter.encode([prepared])
        (result,), self._memory = segmenter.advance([prepared], features, self._memory, seconds)
        self._index, self._previous = self._index + 1, image
        return result
