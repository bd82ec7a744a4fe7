"""Plain ViT (Dosovitskiy et al., ICLR 2021) as MAE trains it, without its class token.

B batch, C channels, h w cells at 1/16.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hmhi.layers.position import mae_position
from hmhi.layers.tokens import to_tokens
from hmhi.models.backbones.base import TokenBackbone, init_transformer
from hmhi.models.stml import STMLBlock


class ViT(TokenBackbone):
    """Patches of 16 x 16 pixels, and blocks on them, under the names of MAE's weights.

    Args:
        channels: C.
        depth: Blocks.
        heads: Heads of their attention.
        drop_path: Stochastic depth of the last block; grows linearly from 0.
    """

    beyond = ("cls_token", "mask_token", "decoder_")
    stages = ()

    def __init__(
        self, *, channels: int = 768, depth: int = 12, heads: int = 12, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.patch_embed = PatchEmbed(channels)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(STMLBlock(channels, heads, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.apply(init_transformer)

    @property
    def transformer(self) -> Sequence[STMLBlock]:
        """See `TokenBackbone`."""
        return list(self.blocks)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `TokenBackbone`; there are no levels above the tokens."""
        x = self.patch_embed(image)  # (B, C, h, w)
        position = mae_position(x.shape[2], x.shape[3], self.channels, x.device)  # (1, h w, C)
        return to_tokens(x) + position, []  # (B, h w, C)


class PatchEmbed(nn.Module):
    """(B, 3, H, W) to (B, C, H / 16, W / 16)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 16, stride=16)

    def forward(self, image: Tensor) -> Tensor:
        """Embed each patch by itself."""
        return self.proj(image)
