"""What every backbone offers."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Four feature stages at strides 4, 8, 16 and 32.

    Called with a batch (B, 3, H, W) and ``flow_from``, the row from which on the batch holds flow maps; returns
    the stages as a list of (B, C, h, w).
    """

    channels: tuple[int, ...]
    """C of stages 1-4."""


class Trunk(nn.Module):
    """Encoder of prompted models: three levels above a stem convolution, to whose output more may be added."""

    channels: tuple[int, ...]
    """C of levels 2, 3, 4, at strides 4, 8, 16."""
    beyond: tuple[str, ...]
    """Beginnings of the names of what a file of the whole network holds beyond the trunk."""

    @property
    def stem(self) -> nn.Conv2d:
        """The first convolution, without bias, from 3 channels to those that `forward` takes."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        """From the stem's output (B, C, H / 2, W / 2) to levels 2, 3, 4: (B, C, H / 4, W / 4), / 8, / 16."""
        raise NotImplementedError
