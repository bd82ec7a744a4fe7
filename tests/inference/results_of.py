"""Results of frames, as a segmenter would give them."""

import numpy as np

from hmhi.inference.results import FrameResult


def result_of(frame, prob, index=0, *, time=None, scene_cut=False, seconds=None):
    """The result of one frame with this probability of the salient object, (H, W) float32."""
    return FrameResult(
        index=index, time=time, frame=frame, labels=(prob > 0.5).astype(np.uint8), ids=(1,), probs=prob[None],
        flow=frame, seconds=seconds or {}, scene_cut=scene_cut,
    )  # fmt: skip


def result_of_objects(frame, labels, ids, index=0):
    """The result of one frame with objects of these labels, each with certainty."""
    probs = np.stack([(labels == object_id).astype(np.float32) for object_id in ids])
    return FrameResult(
        index=index, time=None, frame=frame, labels=labels, ids=tuple(ids), probs=probs, flow=frame, seconds={},
        scene_cut=False,
    )  # fmt: skip
