"""Losses against tables computed by hand and against torchvision."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from hmhi.training.losses import dice_term, focal_term, object_loss, segmentation_loss

LN2, LN3 = math.log(2), math.log(3)

# logit, truth, cross-entropy -log p_t, focal alpha_t (1 - p_t)^2 (-log p_t)
PIXELS = [
    (0.0, 1, LN2, 0.25 * 0.25 * LN2),
    (0.0, 0, LN2, 0.75 * 0.25 * LN2),
    (LN3, 1, -math.log(0.75), 0.25 * 0.0625 * -math.log(0.75)),  # p = 0.75
    (LN3, 0, -math.log(0.25), 0.75 * 0.5625 * -math.log(0.25)),
    (-LN3, 1, -math.log(0.25), 0.25 * 0.5625 * -math.log(0.25)),  # p = 0.25
]


def clip(*frames: list[float]) -> torch.Tensor:
    """One clip of one-row frames: (1, T, 1, 1, W)."""
    return torch.tensor(frames)[None, :, None, None, :]


@pytest.mark.parametrize(("logit", "truth", "cross_entropy", "focal"), PIXELS)
def test_one_pixel(logit: float, truth: int, cross_entropy: float, focal: float):
    terms = segmentation_loss(clip([logit]), clip([float(truth)]))
    assert terms["bce"].item() == pytest.approx(cross_entropy, rel=1e-6)
    assert terms["focal"].item() == pytest.approx(focal, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "truth", "expected"),
    [
        ([0.0, 0.0], [1.0, 0.0], 1 - (2 * 0.5 + 1e-5) / (2 + 1e-5)),
        ([LN3, -LN3], [1.0, 0.0], 1 - (2 * 0.75 + 1e-5) / (2 + 1e-5)),
        ([LN3, -LN3], [0.0, 1.0], 1 - (2 * 0.25 + 1e-5) / (2 + 1e-5)),
        ([0.0, 0.0], [0.0, 0.0], 1 - 1e-5 / (1 + 1e-5)),
        ([-100.0, -100.0], [0.0, 0.0], 0.0),
    ],
)
def test_dice_of_one_frame(logits: list[float], truth: list[float], expected: float):
    assert dice_term(clip(logits), clip(truth)).item() == pytest.approx(expected, abs=1e-6)


def test_frames_are_averaged_or_summed():
    logits, masks = clip([0.0, LN3], [LN3, LN3]), clip([1.0, 1.0], [0.0, 0.0])
    first = segmentation_loss(clip([0.0, LN3]), clip([1.0, 1.0]))["loss"].item()
    second = segmentation_loss(clip([LN3, LN3]), clip([0.0, 0.0]))["loss"].item()
    assert segmentation_loss(logits, masks)["loss"].item() == pytest.approx((first + second) / 2, rel=1e-6)
    total = segmentation_loss(logits, masks, frames="sum")["loss"].item()
    assert total == pytest.approx(first + second, rel=1e-6)


def test_dice_is_averaged_over_clips_not_pooled():
    logits = torch.cat([clip([LN3, LN3]), clip([-LN3, -LN3])])
    masks = torch.cat([clip([1.0, 1.0]), clip([1.0, 0.0])])
    alone = [segmentation_loss(logits[i : i + 1], masks[i : i + 1])["dice"].item() for i in range(2)]
    assert segmentation_loss(logits, masks)["dice"].item() == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_default_weights_are_the_release_loss():
    """20 x (focal + half of the cross-entropy) + dice."""
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 1, 8, 8), (torch.rand(2, 3, 1, 8, 8) < 0.3).float()
    terms = segmentation_loss(logits, masks, frames="sum")
    release = 20 * (terms["focal"] + 0.5 * terms["bce"]) + terms["dice"]
    assert terms["loss"].item() == pytest.approx(release.item(), rel=1e-6)
    alone = segmentation_loss(logits, masks, focal=0, bce=3, dice=0)
    assert alone["loss"].item() == pytest.approx(3 * alone["bce"].item(), rel=1e-6)


def test_focal_agrees_with_torchvision():
    torch.manual_seed(0)
    logits, masks = 5 * torch.randn(1000), (torch.rand(1000) < 0.3).float()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    expected = sigmoid_focal_loss(logits, masks, alpha=0.25, gamma=2)
    torch.testing.assert_close(focal_term(cross_entropy, masks), expected, atol=1e-6, rtol=1e-5)


def test_extreme_logits_have_finite_gradients():
    logits = clip([200.0, -200.0, 200.0, -200.0]).requires_grad_()
    loss = segmentation_loss(logits, clip([1.0, 0.0, 0.0, 1.0]))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[..., 2] > 0


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 1, 1, 512, 512, dtype=torch.float16)
    terms = segmentation_loss(logits, torch.ones(1, 1, 1, 512, 512, dtype=torch.uint8))
    assert terms["loss"].dtype == torch.float32
    assert terms["dice"].item() == pytest.approx(1 / 3, rel=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"logits are .* but masks are"):
        segmentation_loss(torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 2, 4, 4))


def object_logits(probs: list[float]) -> torch.Tensor:
    """(1, 1, 1 + K, 1, pixels): one object with these probabilities at each pixel."""
    prob = torch.tensor(probs)
    return torch.stack([1 - prob, prob]).log()[None, None, :, None]


def test_object_loss_by_hand():
    logits, labels = object_logits([0.5, 0.8, 0.1, 0.25]), torch.tensor([1, 1, 0, 0]).view(1, 1, 1, 4)
    valid = torch.tensor([[True]])
    terms = object_loss(logits, labels, valid, cross_entropy=2, dice=3)
    pixels = [-math.log(0.5), -math.log(0.8), -math.log(0.9), -math.log(0.75)]
    dice = 1 - (2 * 1.3 + 1) / (1.65 + 2 + 1)
    assert terms["ce"].item() == pytest.approx(sum(pixels) / 4)
    assert terms["dice"].item() == pytest.approx(dice)
    assert terms["loss"].item() == pytest.approx(2 * sum(pixels) / 4 + 3 * dice)
    hardest = object_loss(logits, labels, valid, hardest=0.5)["ce"]
    assert hardest.item() == pytest.approx((pixels[0] + pixels[3]) / 2)


def test_absent_objects_change_no_loss_and_no_gradient():
    """A clip of one object beside a clip of two; every clip counts alike."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 3, 4, 4), torch.randint(0, 3, (2, 2, 4, 4))
    labels[1].clamp_(max=1)
    valid = torch.tensor([[True, True], [True, False]])
    logits[1, :, 2] = float("-inf")
    logits.requires_grad_()
    joint = object_loss(logits, labels, valid, dice=1)["loss"]
    joint.backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and (logits.grad[1, :, 2] == 0).all()
    alone = [
        object_loss(logits[:1], labels[:1], valid[:1], dice=1)["loss"],
        object_loss(logits[1:, :, :2], labels[1:], valid[1:, :1], dice=1)["loss"],
    ]
    torch.testing.assert_close(joint, (alone[0] + alone[1]) / 2)
