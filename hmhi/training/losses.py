"""The training loss: focal + binary cross-entropy + dice (paper section 4.1).

B clips, T frames, H x W pixels. With the default weights (20, 10, 1) and ``frames="sum"`` the total is that of
the authors' release, whose "focal" term is this focal term plus half of this cross-entropy.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_ALPHA = 0.25
DICE_SMOOTH = 1e-5


def segmentation_loss(
    logits: Tensor,
    masks: Tensor,
    *,
    focal: float = 20.0,
    bce: float = 10.0,
    dice: float = 1.0,
    frames: Literal["mean", "sum"] = "mean",
) -> dict[str, Tensor]:
    """Weighted sum of the three terms over a batch of clips.

    Args:
        logits: (B, T, 1, H, W) before the sigmoid, any float type; the loss is computed in float32.
        masks: (B, T, 1, H, W) in {0, 1}, any type.
        focal: Weight of the focal term.
        bce: Weight of binary cross-entropy.
        dice: Weight of the dice term.
        frames: Mean over the T frames (paper) or their sum (release).

    Returns:
        Scalars: ``loss``, the value to minimise, and the unweighted terms ``focal``, ``bce`` and ``dice``,
        joined over frames in the same way and detached.

    Raises:
        ValueError: The shapes differ.
    """
    if logits.shape != masks.shape:
        raise ValueError(f"logits are {tuple(logits.shape)} but masks are {tuple(masks.shape)}")
    logits, masks = logits.float(), masks.float()
    scale = logits.shape[1] if frames == "sum" else 1
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    terms = {
        "focal": scale * focal_term(cross_entropy, masks).mean(),
        "bce": scale * cross_entropy.mean(),
        "dice": scale * dice_term(logits, masks).mean(),
    }
    total = focal * terms["focal"] + bce * terms["bce"] + dice * terms["dice"]
    return {"loss": total, **{name: term.detach() for name, term in terms.items()}}


def focal_term(cross_entropy: Tensor, masks: Tensor) -> Tensor:
    """Focal loss of each pixel, gamma 2 (Lin et al. 2017, Eq. 5).

    Args:
        cross_entropy: -log p_t of each pixel, any shape.
        masks: Truth in {0, 1}, same shape.

    Returns:
        alpha_t (1 - p_t)^2 (-log p_t), same shape.
    """
    miss = -torch.expm1(-cross_entropy)  # 1 - p_t without cancellation near p_t = 1
    alpha = FOCAL_ALPHA * masks + (1 - FOCAL_ALPHA) * (1 - masks)
    return alpha * miss.square() * cross_entropy


def dice_term(logits: Tensor, masks: Tensor) -> Tensor:
    """Soft dice distance of each frame.

    Args:
        logits: (B, T, 1, H, W) before the sigmoid.
        masks: (B, T, 1, H, W) in {0, 1}.

    Returns:
        (B, T), 1 - (2 I + s) / (P + G + s) with s = 1e-5.
    """
    prob = logits.sigmoid()
    overlap = (prob * masks).sum(dim=(2, 3, 4))
    extent = prob.sum(dim=(2, 3, 4)) + masks.sum(dim=(2, 3, 4))
    return 1 - (2 * overlap + DICE_SMOOTH) / (extent + DICE_SMOOTH)
