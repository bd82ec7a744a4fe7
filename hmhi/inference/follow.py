"""Find the salient object without a prompt, then carry it: HMHI-Net finds, a network that takes masks follows.

Example:
    >>> found = hmhi.VideoSegmenter().stream("walk.mp4")
    >>> for result in hmhi.follow(found, hmhi.ObjectSegmenter()):
    ...     use(result.mask)

Not in the papers. H W pixels of the source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext

import numpy as np

from hmhi.evaluation.region import jaccard
from hmhi.inference.objects import ObjectSegmenter, ObjectSession
from hmhi.inference.results import FrameResult

STEADY = 3
"""Found masks in a row, each like the one before, that make an object of what was found."""
ALIKE = 0.75
"""IoU of found masks of two frames that are alike."""
AGREE = 0.5
"""IoU of the found and the carried mask of a frame that show the same object."""
LOST = 5
"""Frames in a row without agreement, steady ones at the end, after which what is found replaces what is carried."""


def follow(found: Iterable[FrameResult], segmenter: ObjectSegmenter) -> Generator[FrameResult, None, None]:
    """Carry the object that a `VideoSegmenter` finds.

    Agreement decides, not a schedule:

    1. Until the found mask has been like that of the frame before `STEADY` times in a row, the found mask is the
       result. Then it is given to the segmenter that follows, as object 1.
    2. From there on the result is the mean of both probabilities where the masks agree, and what is carried where
       they do not.
    3. Where they have not agreed `LOST` times in a row, and the found mask is steady, it is given anew.

    At a scene cut all begins anew. The memory does not grow with the length of the video.

    Args:
        found: What `VideoSegmenter.stream` gives, frame after frame.
        segmenter: What follows.

    Yields:
        The results of `found` with other labels and probabilities; `given` is (1,) at frames whose found mask was
        given to the segmenter that follows.
    """
    session: ObjectSession | None = None
    before: np.ndarray | None = None  # found in the frame before, (H, W) bool
    steady = lost = 0
    with closing(found) if isinstance(found, Generator) else nullcontext():
        for result in found:
            if result.scene_cut:
                session, before, steady, lost = None, None, 0, 0
            alike = before is not None and result.mask.any() and jaccard(before, result.mask) >= ALIKE
            steady, before = (steady + 1 if alike else 0), result.mask
            give = steady >= STEADY and (session is None or lost >= LOST)
            if give:
                session, lost = segmenter.session(), 0
            if session is None:
                yield result
                continue
            carried = session.step(result.frame, {1: result.mask} if give else None)
            agree = jaccard(carried.mask, result.mask) >= AGREE
            lost = 0 if agree else lost + 1
            prob = (carried.probs + result.probs) / 2 if agree else carried.probs  # (1, H, W)
            yield dataclasses.replace(
                result,
                labels=(prob[0] > 0.5).astype(np.uint8),
                probs=prob,
                given=carried.given,
                seconds={**result.seconds, "follow": carried.seconds["network"]},
            )
