"""From one probability for each object to one distribution over background and objects.

R rows (objects of all videos of a batch), B videos, K objects of a video, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-7  # probabilities are kept this far from 0 and 1


def soft_aggregate(prob: Tensor, valid: Tensor | None = None) -> Tensor:
    """Soft aggregation (Oh et al., ICCV 2019, section 3.4): the background is where no object is.

    In float32 at least: half precision turns the ends, 15.9 and -16.1, into infinity.

    Args:
        prob: (R, H, W) probability of each object, taken by itself.
        valid: (B, K) bool: the objects that exist; the rows are those, video by video. None stands for one
            video that all rows belong to.

    Returns:
        (B, K + 1, H, W) logits, background first; -inf for objects that do not exist. Their softmax over the
        channels is the merged probability.
    """
    prob = prob.to(torch.promote_types(prob.dtype, torch.float32))
    objects = prob[None]  # (1, R, H, W)
    if valid is not None:
        objects = prob.new_zeros(*valid.shape, *prob.shape[1:]).index_put((valid,), prob)  # (B, K, H, W)
    background = (1.0 - objects).prod(dim=1, keepdim=True)  # (B, 1, H, W)
    merged = torch.cat((background, objects), dim=1).clamp(LEAST, 1.0 - LEAST)  # (B, K + 1, H, W)
    logits = torch.log(merged / (1.0 - merged))
    if valid is None:
        return logits
    absent = torch.cat((torch.zeros_like(valid[:, :1]), ~valid), dim=1)  # (B, K + 1)
    return logits.masked_fill(absent[:, :, None, None], float("-inf"))
