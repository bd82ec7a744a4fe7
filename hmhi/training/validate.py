"""Scores of whole data sets during training, to choose checkpoints by.

Frames count by the rule of the data set's benchmark. Tables for a paper come from ``tools/val_zvos.py`` and
``tools/val_vsod.py``, which read masks from disk and know the rest of each benchmark's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from hmhi.data.dataset import ValVideo
from hmhi.data.objects import LabelledVideo
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS, OBJECT_PROTOCOLS, Protocol
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.training.tasks import Task, VideoScore


@dataclass
class Validation:
    """Scores of one data set."""

    entries: Mapping[str, tuple[float, float]]
    """Video, or object of a video, -> mean J, mean F, both 0-1."""
    pictures: dict[str, Tensor] = field(default_factory=dict)
    """Video -> uint8 (3, h, W), for the first videos of this rank."""

    @property
    def mean(self) -> dict[str, float]:
        """``J``, ``F`` and ``JF``: means over entries, 0-1."""
        region, boundary = (float(values) for values in np.mean(list(self.entries.values()), axis=0))
        return {"J": region, "F": boundary, "JF": (region + boundary) / 2}


def protocol_of(dataset: str) -> Protocol:
    """The rule by which frames of a data set count: its benchmark's for masks, else for maps, else all frames."""
    for protocol in (*MASK_PROTOCOLS.values(), *MAP_PROTOCOLS.values(), *OBJECT_PROTOCOLS.values()):
        if dataset in protocol.datasets:
            return protocol
    return MASK_PROTOCOLS["all-frames"]


def validate(
    task: Task,
    model: nn.Module,
    videos: Sequence[ValVideo | LabelledVideo],
    *,
    protocol: Protocol,
    ranks: Ranks,
    pictures: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Validation | None:
    """Score a data set, its videos shared out over the ranks. Every rank must call it.

    Args:
        task: How a video is scored.
        model: The network; left in the mode it came in.
        videos: All videos of the set, the same on every rank.
        protocol: Which frames count.
        ranks: This process's place.
        pictures: Videos of this rank to draw.
        stopped: Asked after each frame; True ends the validation early on this rank.

    Returns:
        The same scores on every rank; None when any rank stopped early.

    Raises:
        UserError: A video has no frame with a mask.
    """
    mode = model.training
    model.eval()
    mine: dict[str, VideoScore] = {}
    try:
        for number, video in enumerate(videos[ranks.rank :: ranks.world_size]):
            scored = task.score(
                model, video, ranks.device, protocol=protocol, draw=number < pictures, stopped=stopped
            )
            if scored is None:
                break
            mine[video.name] = scored
    finally:
        model.train(mode)
    gathered = distributed.gather((stopped(), {name: score.entries for name, score in mine.items()}))
    if any(stop for stop, _ in gathered):
        return None
    of_video = {name: entries for _, scores in gathered for name, entries in scores.items()}
    return Validation(
        {key: score for video in videos for key, score in of_video[video.name].items()},
        {name: score.picture for name, score in mine.items() if score.picture is not None},
    )
