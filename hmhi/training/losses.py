"""The training losses: of HMHI-Net, focal + binary cross-entropy + dice (paper section 4.1), and of prompted models.

B clips, T frames, K objects, H x W pixels. With the default weights (20, 10, 1) and ``frames="sum"`` the total of
HMHI-Net is that of the authors' release, whose "focal" term is this focal term plus half of this cross-entropy.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_ALPHA = 0.25
DICE_SMOOTH = 1e-5
OBJECT_DICE_SMOOTH = (
    1.0  # pixels: an object that a frame does not show costs little where little of it is found
)


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


def object_loss(
    logits: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    cross_entropy: float = 1.0,
    dice: float = 0.0,
    hardest: float = 1.0,
) -> dict[str, Tensor]:
    """Loss of prompted models: cross-entropy over background and objects, and soft dice of each object.

    Every clip counts alike, whatever the number of its objects.

    Args:
        logits: (B, T, K + 1, H, W), background first, -inf for objects that a clip lacks; any float type.
        labels: (B, T, H, W) in 0..K, any integer type; never an object that the clip lacks.
        valid: (B, K) bool: objects that there are, at least one in each clip.
        cross_entropy: Weight of cross-entropy.
        dice: Weight of the dice term.
        hardest: Share of the pixels of each frame, those of the largest cross-entropy, over which its mean is taken.

    Returns:
        Scalars: ``loss``, the value to minimise, and the unweighted terms ``ce`` and ``dice``, detached.
    """
    logits, labels = logits.float(), labels.long()
    values = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none")  # (B*T, H, W)
    values = values.flatten(1)  # (B*T, H*W)
    if hardest < 1.0:
        values = values.topk(max(1, int(hardest * values.shape[1])), dim=1).values  # (B*T, share of H*W)
    prob = logits.softmax(dim=2)[:, :, 1:]  # (B, T, K, H, W)
    truth = F.one_hot(labels, logits.shape[2]).movedim(4, 2)[:, :, 1:].to(prob)  # (B, T, K, H, W)
    overlap, extent = (prob * truth).sum(dim=(3, 4)), (prob + truth).sum(dim=(3, 4))  # (B, T, K)
    distance = 1 - (2 * overlap + OBJECT_DICE_SMOOTH) / (extent + OBJECT_DICE_SMOOTH)
    of_clip = (distance.mean(dim=1) * valid).sum(dim=1) / valid.sum(dim=1)  # (B,)
    terms = {"ce": values.mean(), "dice": of_clip.mean()}
    total = cross_entropy * terms["ce"] + dice * terms["dice"]
    return {"loss": total, **{name: term.detach() for name, term in terms.items()}}
