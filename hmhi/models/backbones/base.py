"""What every backbone offers."""

from __future__ import annotations

from torch import nn


class Backbone(nn.Module):
    """Four feature stages at strides 4, 8, 16 and 32.

    Called with a batch (B, 3, H, W) and ``flow_from``, the row from which on the batch holds flow maps; returns
    the stages as a list of (B, C, h, w).
    """

    channels: tuple[int, ...]
    """C of stages 1-4."""
