import pytest
import torch
from model_tester import ModelTester, PromptedSteps
from small_hmmn import SETTINGS, make_small_hmmn

import hmhi.memory.affinity as affinity
import hmhi.memory.block_topk as block_topk
from hmhi.config import load_config


def first_masks(batch, size):
    """Two objects, (B, 2, H, W) bool."""
    masks = torch.zeros(batch, 2, *size, dtype=torch.bool)
    masks[:, 0, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    masks[:, 1, size[0] // 2 : -2, size[1] // 2 : -2] = True
    return masks


class TestHMMN(ModelTester):
    kind = "hmmn"
    config = load_config(None, SETTINGS)

    def make(self):
        return make_small_hmmn()

    def clip(self, frames, batch, size):
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(batch, frames, 3, *size, generator=generator)
        return images, first_masks(batch, size), torch.ones(batch, 2, dtype=torch.bool)

    def comparable(self, output):
        return output.softmax(dim=2)

    def exported(self, model):
        clip = self.clip(3, 1, (64, 64))
        _, state = self.steps(model, clip, range(1))
        return PromptedSteps(model, state).eval(), (clip[0][:, 1], clip[0][:, 2])

    def step(self, model, clip, t, state):
        images, masks, _ = clip
        if state is None:
            return model.step(images[:, t], model.start(), {1: masks[0, 0], 2: masks[0, 1]})
        return model.step(images[:, t], state)


@pytest.mark.slow
def test_every_setting_of_the_memory_runs():
    images, masks = torch.rand(8, 1, 3, 64, 64), first_masks(1, (64, 64))[0]
    seen = []
    for change in (
        "topk=32", "kernel=global", "kernel=none", "window=3", "sigma_rule=paper", "track_twice=false",
        "fine_every=true", "fine_levels=[3]", "fine_levels=[2]", "fine_levels=[]", "trunk=lite0",
    ):  # fmt: skip
        model = make_small_hmmn([f"model.hmmn.{change}"])
        state = model.start()
        with torch.inference_mode():
            prob, state = model.step(images[0], state, {1: masks[0], 2: masks[1]})
            for image in images[1:]:
                prob, state = model.step(image, state)
        assert prob.isfinite().all()
        seen.append(prob)
    differ = [not torch.allclose(a, b, atol=1e-6) for i, a in enumerate(seen) for b in seen[:i]]
    assert all(differ)


def test_pieces_of_the_attention_make_the_whole(monkeypatch):
    """However few scores and blocks exist at a time."""
    model, clip = make_small_hmmn(), TestHMMN().clip(4, 1, (64, 96))
    expected, _ = TestHMMN().steps(model, clip, range(4))
    monkeypatch.setattr(affinity, "SCORES_AT_ONCE", 50)
    monkeypatch.setattr(block_topk, "GATHERED_AT_ONCE", 3000)
    found, _ = TestHMMN().steps(model, clip, range(4))
    for ours, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-5)
