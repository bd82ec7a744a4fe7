"""What every backbone offers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hmhi.models.stml import STMLBlock


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


class TokenBackbone(nn.Module):
    """Encoder of STMA: tokens at 1/16, and the transformer blocks that associate them with others."""

    channels: int
    """C of the tokens."""
    stages: tuple[int, ...]
    """C of the levels that `forward` gives beside them, at 1/4 and 1/8; empty where there are none."""
    beyond: tuple[str, ...]
    """Beginnings of the names of what a file of pre-training holds beyond the encoder."""
    norm: nn.LayerNorm
    """Follows the last block."""

    @property
    def transformer(self) -> Sequence[STMLBlock]:
        """The blocks, from the first on."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the blocks start from.

        Args:
            image: (B, 3, H, W) normalised; H and W multiples of 16.

        Returns:
            Tokens (B, h * w, C) with their positions, and the levels of `stages`.
        """
        raise NotImplementedError


def init_transformer(module: nn.Module) -> None:
    """MAE's initialisation: Xavier for all weights, convolutions as if they were linear."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
