"""Decoder of HMMN (section 3.3): from what was read at three levels to a mask for each object.

B videos, R rows (objects of all videos), C channels, h w cells at 1/16, Hp Wp pixels of the padded frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.residual import ResBlock, conv3x3, init_weights, up

FACTORS = {3: 2, 2: 4}
"""Fine level to its positions in a cell of level 4, along one side; from coarse to fine."""


class FineLevel(nn.Module):
    """A step of the decoder up to a fine level."""

    def __init__(self, skip_channels: int, memory_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = conv3x3(skip_channels, channels)
        self.memory = conv3x3(memory_channels, channels, bias=False) if memory_channels else None
        self.refine_skip, self.refine = ResBlock(channels), ResBlock(channels)

    def forward(self, skip: Tensor, read: Tensor | None, coarse: Tensor) -> Tensor:
        """Join a level with the coarser one.

        Args:
            skip: (R, C, ...) what `skip` made of the frame's feature.
            read: (R, Cv, ...) read from memory, or None.
            coarse: (R, C, ...) of half the size.

        Returns:
            (R, C, ...).
        """
        if self.memory is not None and read is not None:
            skip = skip + self.memory(read)
        return self.refine(self.refine_skip(skip) + up(coarse, 2))


class HMMNDecoder(nn.Module):
    """From what was read at each level to two channels for each object (section 3.3).

    Args:
        skip_channels: C of the frame's features at levels 2, 3.
        read_channels: C of what is read at levels 2, 3, 4; 0 where nothing is read.
        channels: Width of every level.
    """

    def __init__(self, skip_channels: Sequence[int], read_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.join = conv3x3(2 * read_channels[2], channels)
        self.refine = ResBlock(channels)
        self.levels = nn.ModuleDict(
            {
                str(level): FineLevel(skip_channels[level - 2], read_channels[level - 2], channels)
                for level in FACTORS
            }
        )
        self.predict = conv3x3(channels, 2)
        self.apply(init_weights)
        nn.init.normal_(self.predict.weight, std=0.01)  # untrained, no pixel is sure

    def join_query(self, value: Tensor) -> Tensor:
        """The share of `join` that depends on the frame alone: (B, Cv, h, w) -> (B, C, h, w)."""
        return F.conv2d(value, self.join.weight[:, value.shape[1] :], self.join.bias, padding=1)

    def forward(
        self, read4: Tensor, joined: Tensor, skips: Mapping[int, Tensor], reads: Mapping[int, Tensor]
    ) -> Tensor:
        """Decode.

        Args:
            read4: (R, Cv, h, w) read at level 4.
            joined: (R, C, h, w) from `join_query`.
            skips: Level to (R, C, ...), what `FineLevel.skip` made of the frame.
            reads: Level to (R, Cv, ...).

        Returns:
            (R, 2, Hp, Wp) logits: not this object, this object.
        """
        x = F.conv2d(read4, self.join.weight[:, : read4.shape[1]], padding=1) + joined  # (R, C, h, w)
        x = self.refine(x)
        for level in FACTORS:
            x = self.levels[str(level)](skips[level], reads.get(level), x)
        return up(self.predict(F.relu(x)), 4)
