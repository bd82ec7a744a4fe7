"""One frame through a network, from uint8 pixels to a probability at the size of the source.

Validation and inference share this, so that a network is scored as it is used.

B videos, H W pixels of the source, h w pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.config import Precision
from hmhi.layers.normalize import Normalize
from hmhi.memory.bank import Memory
from hmhi.models.hmhi_net import PAD_TO, HMHINet
from hmhi.runtime.precision import autocast


@dataclass(frozen=True)
class InputSize:
    """Size of the network's input for frames of any size."""

    fixed: tuple[int, int] = (0, 0)
    """Height and width where `short_side` is None; the aspect of the frames is not kept."""
    short_side: int | None = None
    """Pixels of the short side; the aspect is kept."""
    multiple: int = PAD_TO
    """Of which both sides are, where the aspect is kept."""

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the input for frames of this size."""
        if self.short_side is None:
            return self.fixed
        scale = self.short_side / min(height, width)
        step = self.multiple
        rows, columns = (max(1, round(side * scale / step)) * step for side in (height, width))
        return rows, columns


class FrameRunner:
    """Runs a network frame by frame on one device, in one precision.

    Gradients are the caller's business: use it under `torch.no_grad` or `torch.inference_mode`.

    Args:
        model: In eval mode, on `device`.
        device: Where to compute.
        precision: Autocast type.
    """

    def __init__(self, model: HMHINet, device: torch.device, precision: Precision = "fp32") -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self._normalize = Normalize().to(device)

    def encode(self, images: Sequence[Tensor], flows: Sequence[Tensor]) -> dict[int, Tensor]:
        """Features of B frames, which may belong to one video or to several.

        Args:
            images: B tensors (3, h, w) uint8, RGB.
            flows: B tensors (3, h, w) uint8, colour wheel.

        Returns:
            Stage (1-4) to (B, C, rows, columns).
        """
        return self.encode_pixels(self.load(images, flows))

    def load(self, images: Sequence[Tensor], flows: Sequence[Tensor]) -> Tensor:
        """Images and flows of B frames on the device, in one copy: (2, B, 3, h, w) uint8."""
        pictures = [*images, *flows]
        # Pinned memory lets the copy run beside the network. Torch hands it out anew only when the copy is done, so
        # that two frames take turns in two buffers.
        joined = torch.empty(
            (len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        torch.stack(pictures, out=joined)
        return joined.to(self.device, non_blocking=True).unflatten(0, (2, -1))  # (2, B, 3, h, w)

    def encode_pixels(self, pixels: Tensor) -> dict[int, Tensor]:
        """`encode` of what `load` returned."""
        image, flow = self._normalize(pixels)  # (B, 3, h, w) float32 each
        with autocast(self.device, self.precision):
            return self.model.encode(image, flow)

    def advance(
        self, features: dict[int, Tensor], size: tuple[int, int], memory: Memory | None
    ) -> tuple[Tensor, Memory]:
        """Segment the next frame of B videos.

        Args:
            features: What `encode` returned for these frames.
            size: (h, w) of the network's input.
            memory: Of these videos; None where they begin.

        Returns:
            Logits (B, 1, h, w), and the memory for the next frame.
        """
        with autocast(self.device, self.precision):
            return self.model.advance(features, size, memory)

    def step(self, image: Tensor, flow: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """`encode` and `advance` for the next frame of one video; image and flow are (3, h, w) uint8."""
        size = (image.shape[1], image.shape[2])
        return self.advance(self.encode([image], [flow]), size, memory)


def to_probability(logits: Tensor, size: tuple[int, int], *, stretch: bool = False) -> Tensor:
    """Logits of the network to probabilities at the size of the source.

    Args:
        logits: (B, 1, h, w).
        size: (H, W) of the result; reached by bilinear interpolation of the logits.
        stretch: Spread each frame's values over 0-1, as the release does. A frame without an object then shows
            one all the same.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    prob = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
    if stretch:
        low, high = prob.amin((1, 2, 3), keepdim=True), prob.amax((1, 2, 3), keepdim=True)
        prob = (prob - low) / (high - low + 1e-8)
    return prob


def to_arrays(maps: Sequence[Tensor]) -> list[np.ndarray]:
    """Tensors of any shapes as arrays, brought from their device by one copy."""
    flat = torch.cat([each.flatten() for each in maps]).cpu().numpy()
    ends = np.cumsum([each.numel() for each in maps])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(tuple(each.shape)) for part, each in zip(parts, maps, strict=True)]
