"""A trunk for frames with masks.

B videos, R rows (objects of all videos), Hp Wp pixels of the padded frame, h w cells at 1/16, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from hmhi.models.backbones.base import Trunk


class MaskedTrunk(nn.Module):
    """A trunk that sees, beside the image, an object and all other objects."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        stem = trunk.stem
        self.mask, self.others = (
            type(stem)(1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)  # type: ignore[arg-type]
            for _ in range(2)
        )
        for conv in (self.mask, self.others):  # seen about as strongly as the image
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, image: Tensor, owner: Tensor, masks: Tensor, others: Tensor) -> list[Tensor]:
        """Levels 2, 3, 4 of each object.

        Args:
            image: (B, 3, Hp, Wp) normalised.
            owner: (R,) int64, the video of each object.
            masks: (R, Hp, Wp).
            others: (R, Hp, Wp).

        Returns:
            (R, C, Hp / 4, Wp / 4), (R, C, Hp / 8, Wp / 8), (R, C, h, w).
        """
        of_image = self.trunk.stem(image)[owner]  # (R, C, Hp / 2, Wp / 2)
        return self.trunk(of_image + self.mask(masks[:, None]) + self.others(others[:, None]))
