"""One frame through a prompted network, from pixels and given masks to probabilities at the size of the source.

Validation and inference share this, so that a network is scored as it is used.

K objects, H W pixels of the source, h w pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.config import InferConfig, Precision
from hmhi.memory.objects import ObjectState
from hmhi.models.prompted import PromptedNet, override
from hmhi.runtime.frames import InputSize
from hmhi.runtime.precision import autocast


class ObjectRunner:
    """Runs a prompted network frame by frame on one device, in one precision.

    Gradients are the caller's business: use it under `torch.no_grad` or `torch.inference_mode`.

    Args:
        model: In eval mode, on `device`.
        device: Where to compute.
        precision: Autocast type.
        short_side: Pixels of the short side of the input, aspect kept.
    """

    def __init__(
        self, model: PromptedNet, device: torch.device, precision: Precision, short_side: int
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.input_size = InputSize(short_side=short_side, multiple=1).of

    def step(
        self,
        image: Tensor,
        state: ObjectState,
        given: Mapping[int, np.ndarray],
        size: tuple[int, int],
    ) -> tuple[Tensor, ObjectState]:
        """Segment the next frame of a video.

        Args:
            image: (3, h, w) uint8, of `input_size`.
            state: What is remembered.
            given: Id to (H, W) bool; each keeps a pixel at (h, w), see `resize_mask`.
            size: (H, W) of the source.

        Returns:
            (K + 1, H, W) probabilities, background first, on the device, and the next state.
        """
        images = image[None].to(self.device, non_blocking=True).float() / 255  # (1, 3, h, w)
        small, whole = (images.shape[2], images.shape[3]), {}
        for number, mask in given.items():
            whole[number] = torch.from_numpy(mask).to(self.device)  # (H, W)
        inputs = {number: resize_mask(mask, small) for number, mask in whole.items()}
        with autocast(self.device, self.precision):
            prob, state = self.model.step(images, state, inputs)  # (K + 1, h, w)
        if small != size:
            prob = F.interpolate(prob[None], size, mode="bilinear", align_corners=False)[0]  # (K + 1, H, W)
            if whole:  # as they are at full size
                prob = override(prob, state.ids, whole)
        return prob, state


def short_side_of(config: InferConfig, model: PromptedNet) -> int:
    """Short side of a network's input where nobody asks for another one."""
    side = config.short_side or model.traits.short_side
    assert side is not None  # prompted models keep the aspect
    return side


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) bool to (h, w) bool, by nearest neighbour."""
    if tuple(mask.shape) == size:
        return mask
    return F.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0] > 0
