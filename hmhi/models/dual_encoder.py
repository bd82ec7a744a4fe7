"""One backbone for image and optical flow (paper Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmhi.config import Inputs
from hmhi.models.backbones.base import Backbone


class DualEncoder(nn.Module):
    """Encodes image and flow in one batch with shared weights and adds them stage by stage.

    Args:
        backbone: Four-stage network.
        inputs: Modalities that are read; with one alone nothing is added (paper Table 6).
    """

    def __init__(self, backbone: Backbone, inputs: Inputs = "image+flow") -> None:
        super().__init__()
        self.backbone = backbone
        self.inputs = inputs

    def forward(self, image: Tensor | None, flow: Tensor | None) -> list[Tensor]:
        """Encode one frame.

        Args:
            image: (B, 3, H, W) normalised, H and W multiples of 32; may be None when `inputs` is ``flow``.
            flow: (B, 3, H, W) normalised colour-wheel map; may be None when `inputs` is ``image``.

        Returns:
            Stages 1-4, (B, C, H / 2^(s+1), W / 2^(s+1)) each.
        """
        if self.inputs == "image":
            assert image is not None
            return self.backbone(image, flow_from=image.shape[0])
        if self.inputs == "flow":
            assert flow is not None
            return self.backbone(flow, flow_from=0)
        assert image is not None and flow is not None
        batch = image.shape[0]  # not `len`, which would bind an exported graph to a number
        stages = self.backbone(torch.cat((image, flow)), flow_from=batch)  # (2 B, C, h, w) each
        return [stage[:batch] + stage[batch:] for stage in stages]
