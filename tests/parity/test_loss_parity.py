"""The release's loss and the gradient of every parameter, through five frames of memory."""

import json

import numpy as np
import pytest
import torch
from reference import FOLDER, clip, make_inputs, release_state

from hmhi.config import ModelConfig
from hmhi.models.build import build_model
from hmhi.models.key_maps import RELEASE_DEAD
from hmhi.models.release import release_to_hmhi
from hmhi.models.weights import load_exactly
from hmhi.training.losses import segmentation_loss

pytestmark = pytest.mark.parity

RELATIVE = 1e-3


@pytest.fixture(scope="module")
def backward():
    """Model after one backward pass of the release's loss (a sum over frames), and the loss terms of each frame."""
    model = build_model(ModelConfig()).eval()
    load_exactly(model, release_to_hmhi(release_state("mit_b1_full"), "mit_b1"), "reference weights")
    clips = [clip(5, 256, phase) for phase in (0.0, 0.37)]
    images, flows = (torch.cat(parts) for parts in zip(*clips, strict=True))
    masks = torch.stack([torch.from_numpy(make_inputs.target(5, 256, 256, phase)) for phase in (0.0, 0.37)])
    logits = model(images, flows)
    frames = [segmentation_loss(logits[:, t : t + 1], masks[:, t : t + 1]) for t in range(5)]
    total = segmentation_loss(logits, masks, frames="sum")["loss"]
    total.backward()
    return model, frames, total


@pytest.fixture(scope="module")
def reference():
    return json.loads((FOLDER / "loss_grad_256.json").read_text())


def test_loss_terms(backward, reference):
    _, frames, total = backward
    for ours, expected in zip(frames, reference["per_frame"], strict=True):
        assert ours["loss"].item() == pytest.approx(expected["total"], rel=RELATIVE)
        assert ours["focal"].item() == pytest.approx(expected["pure_focal_mean"], rel=RELATIVE)
        assert ours["bce"].item() == pytest.approx(expected["bce_mean"], rel=RELATIVE)
        assert ours["dice"].item() == pytest.approx(expected["dice"], rel=RELATIVE)
    assert total.item() == pytest.approx(reference["total_sum"], rel=RELATIVE)


def test_gradient_norms(backward, reference):
    model, _, _ = backward
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in ours.values()), "every live parameter learns"
    compared = 0
    for key, (norm, _sum) in reference["grad_l2_and_sum"].items():
        (name,) = release_to_hmhi({key: torch.empty(0)}, "mit_b1")
        gradient = ours[name].double().norm().item()
        # a key's bias moves no softmax: its gradient is rounding noise around 1e-6
        np.testing.assert_allclose(gradient, norm, rtol=RELATIVE, atol=1e-4, err_msg=key)
        compared += 1
    assert compared == len(ours)
    assert all(RELEASE_DEAD.match(key) for key in reference["params_without_grad"])
