"""Backbones from timm: Swin-T as the release uses it, and any model with feature maps at strides 4 to 32."""

from __future__ import annotations

from typing import Any

import timm
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from hmhi.models.backbones.base import Backbone

STRIDES = [4, 8, 16, 32]


class TimmBackbone(Backbone):
    """Four feature stages of a timm model, without its head and without weights.

    Image and flow share every weight; there are no flow adapters.

    Args:
        name: timm's name of the model.
        drop_path: Stochastic depth of the deepest block.

    Raises:
        ValueError: timm does not know the model, or it has no feature maps at strides 4, 8, 16 and 32, or no
            stochastic depth where `drop_path` asks for it.
    """

    def __init__(self, name: str, *, drop_path: float = 0.1) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}; timm.list_models() names them all")
        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        if "swin" in name:
            options |= {"strict_img_size": False, "always_partition": True}
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
        strides = probe.feature_info.reduction()
        if not set(STRIDES) <= set(strides):
            raise ValueError(f"{name} has feature strides {strides}; HMHI-Net needs {STRIDES}")
        stages = tuple(strides.index(stride) for stride in STRIDES)
        try:
            net: Any = timm.create_model(
                name, features_only=True, pretrained=False, out_indices=stages, **options
            )
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            raise ValueError(f"{name} has no stochastic depth; set model.drop_path=0") from None
        self.net: nn.Module = net
        self.channels = tuple(net.feature_info.channels())
        self.channels_last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        for module in self.net.modules():
            if isinstance(module, SwinTransformerBlock):
                module.__class__ = PadFirstBlock  # same weights and fields, other window arithmetic

    def forward(self, x: Tensor, flow_from: int) -> list[Tensor]:
        """Stages 1-4 of x (B, 3, H, W), (B, C, h, w) each; `flow_from` changes nothing here."""
        stages = self.net(x)
        return [
            stage.permute(0, 3, 1, 2) if self.channels_last else stage for stage in stages
        ]  # (B, C, h, w)


class PadFirstBlock(SwinTransformerBlock):
    """Swin block that pads to whole windows before it shifts them, as Swin for dense prediction does.

    timm shifts first, which gives other windows wherever a side is no multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -w % self.window_size[1], 0, -h % self.window_size[0]))
        return super()._attn(x)[:, :h, :w]
