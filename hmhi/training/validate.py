"""J and F of whole videos during training, streamed frame by frame.

The scores select checkpoints. They use DAVIS-16's frame rule for every data set; tables for a paper come from
``tools/val_zvos.py``, which knows each benchmark's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.config import Precision
from hmhi.data.dataset import FrameSample, ValVideo
from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.region import jaccard
from hmhi.models.hmhi_net import HMHINet
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.runtime.frames import FrameRunner, to_probability

PICTURE_FRAME = 8
"""Frame of a video that is drawn (the last one of a shorter video): late enough for a full memory."""


@dataclass
class Validation:
    """Scores of one data set."""

    videos: dict[str, tuple[float, float]]
    """Video -> mean J, mean F, both 0-1."""
    pictures: dict[str, Tensor] = field(default_factory=dict)
    """Video -> uint8 (3, h, 4 w), for the first videos of this rank."""

    @property
    def mean(self) -> dict[str, float]:
        """``J``, ``F`` and ``JF``: means over videos, 0-1."""
        region, boundary = (float(values) for values in np.mean(list(self.videos.values()), axis=0))
        return {"J": region, "F": boundary, "JF": (region + boundary) / 2}


def validate(
    model: HMHINet,
    videos: Sequence[ValVideo],
    *,
    ranks: Ranks,
    precision: Precision = "fp32",
    pictures: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Validation | None:
    """Score a data set, its videos shared out over the ranks. Every rank must call it.

    Args:
        model: Network with ``step(image, flow, memory)``; left in the mode it came in.
        videos: All videos of the set, the same on every rank.
        ranks: This process's place.
        precision: Autocast type.
        pictures: Videos of this rank to draw.
        stopped: Asked after each frame; True ends the validation early on this rank.

    Returns:
        The same scores on every rank; None when any rank stopped early.

    Raises:
        ValueError: A video has no frame with a mask.
    """
    mode = model.training
    model.eval()
    mine = Validation({})
    try:
        for index, video in enumerate(videos[ranks.rank :: ranks.world_size]):
            scored = score_video(
                model, video, ranks.device, precision, draw=index < pictures, stopped=stopped
            )
            if scored is None:
                break
            mine.videos[video.name] = scored[0]
            if scored[1] is not None:
                mine.pictures[video.name] = scored[1]
    finally:
        model.train(mode)
    shares = distributed.gather((stopped(), mine.videos))
    if any(stop for stop, _ in shares):
        return None
    joined = {name: score for _, share in shares for name, score in share.items()}
    return Validation({video.name: joined[video.name] for video in videos}, mine.pictures)


@torch.no_grad()  # not inference_mode: a table that the network caches here must serve training too
def score_video(
    model: HMHINet,
    video: ValVideo,
    device: torch.device,
    precision: Precision = "fp32",
    *,
    draw: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[tuple[float, float], Tensor | None] | None:
    """Mean J and F of one video at its own resolution, with memory use independent of its length.

    The first and the last frame do not count, as in DAVIS-16, unless no other frame has a mask.

    Args:
        model: Network in eval mode.
        video: Frames of one video.
        device: Where the network is.
        precision: Autocast type.
        draw: Also draw frame `PICTURE_FRAME`.
        stopped: Asked after each frame.

    Returns:
        (J, F) and the picture, if any; None when ``stopped`` said so.

    Raises:
        ValueError: No frame has a mask.
    """
    scores: list[tuple[int, float, float]] = []
    runner = FrameRunner(model, device, precision)
    picture, memory, index = None, None, -1
    for index, sample in enumerate(video):
        logits, memory = runner.step(sample.image, sample.flow, memory)  # (1, 1, h, w)
        if sample.mask is not None:
            prediction = (to_probability(logits, sample.size)[0, 0] > 0.5).cpu().numpy()
            truth = sample.mask > 0
            scores.append((index, jaccard(prediction, truth), f_measure(prediction, truth)))
        if draw and index <= PICTURE_FRAME:
            picture = _picture(sample, logits[0, 0].float().sigmoid().cpu())
        if stopped():
            return None
    if not scores:
        raise ValueError(f"validation video {video.name} has no frame with a mask")
    counted = [score for score in scores if 0 < score[0] < index] or scores
    _, region, boundary = np.mean(counted, axis=0)
    return (float(region), float(boundary)), picture


def _picture(sample: FrameSample, prob: Tensor) -> Tensor:
    """Image | flow | truth | prediction, side by side, uint8 (3, h, 4 w)."""
    truth = torch.zeros_like(prob)
    if sample.mask is not None:
        mask = torch.from_numpy(sample.mask)[None, None].float()
        truth = F.interpolate(mask, size=prob.shape, mode="nearest")[0, 0]
    grey = [(255 * x).to(torch.uint8).expand(3, -1, -1) for x in (truth, prob)]
    return torch.cat([sample.image.cpu(), sample.flow.cpu(), *grey], dim=2)
