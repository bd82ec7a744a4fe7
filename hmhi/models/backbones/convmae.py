"""ConvViT, the hybrid of convolution and transformer that ConvMAE trains (Gao et al., NeurIPS 2022).

LayerNorm epsilons follow its weights: 1e-5 in patch embeddings and convolutional blocks, 1e-6 elsewhere.

B batch, C channels, h w cells at 1/16.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.blocks import ChannelNorm, DropPath
from hmhi.layers.position import mae_position
from hmhi.layers.tokens import to_tokens
from hmhi.models.backbones.base import TokenBackbone, init_transformer
from hmhi.models.stml import STMLBlock


class ConvViT(TokenBackbone):
    """Convolutional stages at 1/4 and 1/8, transformer blocks at 1/16, under the names of ConvMAE's weights.

    Args:
        channels: C at 1/4, 1/8 and 1/16.
        depths: Blocks of each stage.
        heads: Heads of the attention at 1/16.
        drop_path: Stochastic depth of the last block; grows linearly from 0.
    """

    beyond = ("mask_token", "decoder_", "stage1_output_decode.", "stage2_output_decode.")

    def __init__(
        self,
        *,
        channels: Sequence[int] = (256, 384, 768),
        depths: Sequence[int] = (2, 2, 11),
        heads: int = 12,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.stages = channels[2], (channels[0], channels[1])
        rates = iter(drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths)))

        def blocks(kind: type[ConvBlock] | type[STMLBlock], i: int, *heads: int) -> nn.ModuleList:
            return nn.ModuleList(kind(channels[i], *heads, drop_path=next(rates)) for _ in range(depths[i]))

        self.patch_embed1 = PatchEmbed(3, channels[0], 4)
        self.patch_embed2, self.patch_embed3 = (PatchEmbed(a, b, 2) for a, b in pairwise(channels))
        self.patch_embed4 = nn.Linear(channels[2], channels[2])
        self.blocks1, self.blocks2 = blocks(ConvBlock, 0), blocks(ConvBlock, 1)
        self.blocks3 = blocks(STMLBlock, 2, heads)
        self.norm = nn.LayerNorm(channels[2], eps=1e-6)
        self.apply(init_transformer)

    @property
    def transformer(self) -> Sequence[STMLBlock]:
        """See `TokenBackbone`."""
        return list(self.blocks3)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `TokenBackbone`; the levels are at 1/4 and 1/8."""
        quarter = self.patch_embed1(image)  # (B, C1, 4 h, 4 w)
        for block in self.blocks1:
            quarter = block(quarter)
        eighth = self.patch_embed2(quarter)  # (B, C2, 2 h, 2 w)
        for block in self.blocks2:
            eighth = block(eighth)
        x = self.patch_embed3(eighth)  # (B, C, h, w)
        position = mae_position(x.shape[2], x.shape[3], self.channels, x.device)  # (1, h w, C)
        return self.patch_embed4(to_tokens(x)) + position, [quarter, eighth]  # (B, h w, C)


class PatchEmbed(nn.Module):
    """Convolution of patches that do not overlap, norm and GELU; (B, C, H, W) -> (B, Cout, H / side, W / side)."""

    def __init__(self, channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, side, stride=side)
        self.norm = ChannelNorm(out_channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Embed each patch by itself."""
        return F.gelu(self.norm(self.proj(x)))


class ConvBlock(nn.Module):
    """Transformer block with a depthwise 5x5 convolution in the place of attention; (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ChannelNorm(channels, eps=1e-5) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.attn = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Conv2d(channels, 4 * channels, 1), "fc2": nn.Conv2d(4 * channels, channels, 1)}
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Mix cells, then channels."""
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))
