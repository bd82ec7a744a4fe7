"""What ``quality`` stands for: a mask soon, or the best one.

========  ======  ======  ======  ==========================================
quality   flow    refine  tta     for
========  ======  ======  ======  ==========================================
``fast``  dis     none    none    live use, large frames
(none)    dis     auto    none    a CPU; a checkpoint's config may differ
``best``  gmflow  auto    flip    a GPU; takes over a second a frame on a CPU
========  ======  ======  ======  ==========================================

GMFlow then leads to the next frame alone: joining it with that to the previous one doubles the wait for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from hmhi.errors import UserError
from hmhi.flow.estimate import find_weights
from hmhi.inference.inputs import VideoInputs

log = logging.getLogger(__name__)

QUALITIES = ("fast", "best")
_FLOW = {"fast": ["infer.flow=dis"], "best": ["infer.flow=gmflow", "data.flow_direction=forward"]}
_EXTRAS = {
    "fast": ["infer.refine=none", "infer.tta=none"],
    "best": ["infer.refine=auto", "infer.tta=flip"],
}


def quality_settings(quality: str | None, *, own_flow: bool, overrides: Sequence[str]) -> list[str]:
    """The config changes that a quality stands for; later ones of the same keys win over them.

    Args:
        quality: Of `QUALITIES`; None changes nothing.
        own_flow: Whether the flow is chosen or given.
        overrides: Further config changes, which may choose the flow too.

    Raises:
        UserError: Unknown quality.
    """
    if quality is None:
        return []
    if quality not in QUALITIES:
        raise UserError(f"unknown quality {quality!r}; choose one of {', '.join(QUALITIES)}")
    chosen = own_flow or any(text.startswith("infer.flow=") for text in overrides)
    return [*([] if chosen else _FLOW[quality]), *_EXTRAS[quality]]


def default_quality(device: torch.device, inputs: VideoInputs, flow: str | None) -> str | None:
    """What ``hmhi segment`` takes where nothing is said: the best on a GPU, else what the checkpoint's config says.

    A camera does not wait. Where GMFlow would be needed and is not installed, a warning says what to type.

    Args:
        device: Where the network runs.
        inputs: What is segmented.
        flow: Method or folder that was asked for.
    """
    if device.type != "cuda" or any(video.live for video in inputs.videos):
        return None
    if flow is None and inputs.flow is None:
        try:
            find_weights("gmflow")
        except UserError as error:
            log.warning("going on without --quality best: %s", error)
            return None
    return "best"
