"""One video in, one record out: the unit that shards, Ray Data or any other scheduler hands round."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from hmhi.errors import UserError
from hmhi.inference.results import FrameResult
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.sources import open_source
from hmhi.media.rle import encode_mask

log = logging.getLogger(__name__)


class SegmentVideo:
    """Segments videos one after the other; build it once in each worker.

    The record of a video is plain data, ready for JSON or Parquet:

    ===============  =============================================================================================
    ``frames``       number T of frames
    ``fps``          frames a second; None where the video does not say
    ``size``         [height, width] in pixels
    ``ids``          K object ids
    ``masks``        T lists of K COCO run-length codes, None where the object is not in the frame
    ``scores``       T lists of K: mean probability inside the mask, in [0, 1]; 0 where there is none
    ``seconds``      ``total``, and what ``decode``, ``flow`` and ``network`` took (they overlap)
    ``error``        None, or why the video could not be segmented; the other values are then None or empty
    ===============  =============================================================================================

    Args:
        checkpoint: As for `VideoSegmenter`.
        device: As for `VideoSegmenter`.
        **options: Further arguments of `VideoSegmenter`.

    Raises:
        UserError: As `VideoSegmenter`.
    """

    def __init__(self, checkpoint: str | Path | None = None, device: str = "auto", **options: Any) -> None:
        self._segmenter = VideoSegmenter(checkpoint, device, **options)

    def __call__(
        self, video: bytes | str | Path, progress: Callable[[int], None] = lambda frames: None
    ) -> dict[str, Any]:
        """Segment a video.

        Args:
            video: The bytes of a video file, or a path that `hmhi.inference.sources.open_source` opens.
            progress: Called after each frame with their number so far; what it raises ends the video.

        Returns:
            The record; a video that cannot be read or segmented has its ``error``, and no exception is raised.
        """
        begin = time.perf_counter()
        record: dict[str, Any] = {
            "frames": 0, "fps": None, "size": None, "ids": [], "masks": [], "scores": [], "seconds": {},
            "error": None,
        }  # fmt: skip
        seconds: Counter[str] = Counter()
        try:
            source = open_source(video)
            record["fps"] = source.fps
            with closing(self._segmenter.stream(source)) as results:
                for result in results:
                    record["masks"].append([_code(result.mask_of(number)) for number in result.ids])
                    record["scores"].append([_score(result, number) for number in result.ids])
                    record["frames"] += 1
                    record |= {"ids": list(result.ids), "size": list(result.mask.shape)}
                    seconds.update(result.seconds)
                    progress(record["frames"])
        except (UserError, ValueError, OSError) as error:
            return failure(str(error), time.perf_counter() - begin)
        except Exception as error:
            log.exception("a video failed")
            return failure(f"{type(error).__name__}: {error}", time.perf_counter() - begin)
        record["seconds"] = {"total": time.perf_counter() - begin, **seconds}
        return record


def failure(error: str, seconds: float) -> dict[str, Any]:
    """The record of a video that could not be segmented."""
    return {
        "frames": 0, "fps": None, "size": None, "ids": [], "masks": [], "scores": [],
        "seconds": {"total": seconds}, "error": error,
    }  # fmt: skip


def _code(mask: np.ndarray) -> dict[str, Any] | None:
    return encode_mask(mask) if mask.any() else None


def _score(result: FrameResult, number: int) -> float:
    mask = result.mask_of(number)
    return round(float(np.mean(result.prob_of(number)[mask])), 4) if mask.any() else 0.0
