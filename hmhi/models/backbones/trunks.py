"""Trunks of prompted models, from torchvision and timm."""

from __future__ import annotations

from typing import Any

import timm
import torchvision
from torch import Tensor, nn

from hmhi.models.backbones.base import Trunk

RESNETS = {"resnet18": (64, 128, 256), "resnet50": (256, 512, 1024)}
"""Name to the channels at strides 4, 8 and 16."""


def build_trunk(name: str) -> Trunk:
    """A trunk with random weights: one of `RESNETS`, or ``lite0`` to ``lite2``."""
    return ResNetTrunk(name) if name in RESNETS else LiteTrunk(name)


class ResNetTrunk(Trunk):
    """torchvision's ResNet up to ``layer3``, with its names.

    Args:
        name: One of `RESNETS`.
    """

    beyond = ("layer4.", "fc.")

    def __init__(self, name: str = "resnet50") -> None:
        super().__init__()
        net = torchvision.models.get_model(name, weights=None)
        self.channels = RESNETS[name]
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3

    @property
    def stem(self) -> nn.Conv2d:
        """See `Trunk`."""
        return self.conv1

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `Trunk`."""
        level2 = self.layer1(self.maxpool(self.relu(self.bn1(x))))
        level3 = self.layer2(level2)
        return [level2, level3, self.layer3(level3)]


class LiteTrunk(Trunk):
    """timm's EfficientNet-Lite up to stride 16, with its names.

    Args:
        name: ``lite0``, ``lite1`` or ``lite2``.
    """

    ENDS = (1, 2, 4)  # of `blocks`: the last at strides 4, 8 and 16
    SCALE = 0.2  # these end without an activation and spread by 5 to 6; keys of that size would saturate a softmax
    beyond = ("blocks.5.", "blocks.6.", "conv_head.", "bn2.", "classifier.")

    def __init__(self, name: str = "lite0") -> None:
        super().__init__()
        net: Any = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
        self.conv_stem, self.bn1 = net.conv_stem, net.bn1
        self.blocks = net.blocks[: self.ENDS[-1] + 1]
        self.channels = tuple(net.feature_info[i]["num_chs"] for i in (1, 2, 3))

    @property
    def stem(self) -> nn.Conv2d:
        """See `Trunk`."""
        return self.conv_stem

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `Trunk`."""
        x = self.bn1(x)
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ENDS:
                levels.append(x * self.SCALE)
        return levels
