"""From the pixels of a picture to what a network trained on ImageNet expects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Subtracts ImageNet's mean and divides by its standard deviation, on the device where the input lies."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise RGB pixels.

        Args:
            pixels: (..., 3, H, W) uint8.

        Returns:
            (..., 3, H, W) float32.
        """
        return (pixels.float() / 255 - self.mean) / self.std
