"""STMA, our reading of a paper without code: what can be proved of it are the properties that the paper states."""

from dataclasses import replace

import pytest
import torch
from model_tester import ModelTester, PromptedSteps
from small_stma import SETTINGS, make_small_stma

from hmhi.config import ConfigError, load_config
from hmhi.models.build import build_model

SIZE = (48, 64)


def video(frames: int, size=SIZE, seed: int = 1) -> torch.Tensor:
    """(T, 1, 3, H, W) of noise that moves one pixel to the right with each frame."""
    still = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return torch.stack([still.roll(t, dims=-1) for t in range(frames)])


def box(top: int, left: int, size=SIZE, side: int = 20) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


TWO = {1: box(0, 5), 2: box(25, 40)}


@torch.inference_mode()
def run(model, frames, given, state=None, start=0, change=lambda state: state):
    """Probabilities of each frame from `start` on, and the state after each; `given` by frame number."""
    state, probs, states = state or model.start(), [], []
    for t in range(start, len(frames)):
        prob, state = model.step(frames[t], change(state), given.get(t))
        probs.append(prob)
        states.append(state)
    return probs, states


def close(ours, expected, within=1e-5):
    torch.testing.assert_close(ours, expected, atol=within, rtol=1e-5)


class TestSTMA(ModelTester):
    kind = "stma"
    config = load_config(None, SETTINGS)

    def make(self):
        return make_small_stma()

    def clip(self, frames, batch, size):
        images = torch.rand(batch, frames, 3, *size, generator=torch.Generator().manual_seed(1))
        masks = torch.stack((box(2, 2, size, 12), box(16, 10, size, 14))).expand(batch, -1, -1, -1)
        return images, masks, torch.ones(batch, 2, dtype=torch.bool)

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


@pytest.mark.parametrize(("backbone", "count"), [("convvit_b", 130_035_335), ("vit_b", 135_554_951)])
def test_parameters_of_the_full_size(backbone, count):
    with torch.device("meta"):
        model = build_model(load_config(None, ["model.kind=stma", f"model.stma.backbone={backbone}"]).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.fixture(scope="module")
def model():
    return make_small_stma(["model.stma.memory_interval=3"])


def test_references_are_the_first_frame_and_the_newest_of_every_third(model):
    _, states = run(model, video(8), {0: TWO})
    expected = [[0], [0], [0], [0, 3], [0, 3], [0, 3], [0, 6], [0, 6]]
    assert [list(state.shared["spatial"].frames) for state in states] == expected


def test_the_temporal_memory_grows_by_every_third_frame(model):
    _, states = run(model, video(8), {0: TWO})
    expected = [[0], [0], [0], [0, 3], [0, 3], [0, 3], [0, 3, 6], [0, 3, 6]]
    assert [list(state.groups[0].banks["temporal"].frames) for state in states] == expected


def test_every_group_keeps_its_first_frame_as_long_as_it_is_followed(model):
    frames, given = video(14), {0: {1: box(0, 5)}, 4: {7: box(25, 40)}}
    probs, states = run(model, frames[:10], given)
    assert states[9].shared["spatial"].frames == (0, 4, 9)
    assert [group.banks["temporal"].frames for group in states[9].groups] == [(0, 3, 6, 9), (4, 6, 9)]
    assert [len(prob) for prob in probs] == [2] * 4 + [3] * 6
    _, later = run(model, frames, {}, states[9].without([1]), start=10)
    assert later[-1].shared["spatial"].frames == (4, 12)
    _, empty = run(model, frames, {11: {3: box(0, 0)}}, states[9].without([1, 7]), start=10)
    assert empty[-1].shared["spatial"].frames == (11, 12)


def test_the_temporal_memory_is_bounded_and_keeps_given_masks():
    model = make_small_stma(["model.stma.memory_frames=3", "model.stma.memory_interval=1"])
    _, states = run(model, video(9), {0: TWO, 3: {1: box(10, 10)}})
    banks = [state.groups[0].banks["temporal"] for state in states]
    assert all(len(bank) <= 4 for bank in banks)  # a pinned slot beyond the first makes room for itself
    assert all({0, 3} <= set(bank.frames) for bank in banks[3:])
    assert banks[-1].frames[-1] == 8


def test_what_a_read_gives_to_the_slots_is_counted(model):
    """Each query hands out 1 in all; frame 0 has been read at frames 1 to 4, frame 3 at frame 4."""
    _, states = run(model, video(5), {0: TWO})
    first, second = states[-1].groups[0].banks["temporal"].slots
    cells = first.grid[0] * first.grid[1]
    assert (first.life, second.life) == (4, 1)
    assert float(first.use + second.use) == pytest.approx(4 * cells, rel=1e-5)
    assert 0 < second.use < cells


def test_the_order_of_objects_is_the_order_of_results_and_nothing_else(model):
    frames, masks = video(5), {**TWO, 3: box(0, 44)}
    probs, states = run(model, frames, {0: masks})
    turned, turned_states = run(model, frames, {0: dict(reversed(masks.items()))})
    assert turned_states[-1].ids == (3, 2, 1)
    for ours, expected in zip(turned, probs, strict=True):
        close(ours[[0, 3, 2, 1]], expected)
    with torch.inference_mode():
        features = [model.encode(frames[4], state[3]).feature for state in (states, turned_states)]
    close(*features, within=1e-6)


def test_what_is_kept_of_references_equals_computing_it_again(model):
    """Through two writes, a later group, a correction and a removal."""
    frames = video(12)
    given = {0: TWO, 4: {7: box(25, 0)}, 8: {2: box(20, 30)}}

    def forget(state):
        return replace(state, context=None)

    def without_one(state):
        return state.without([1]) if state.frame == 10 else state

    kept, states = run(model, frames, given, change=without_one)
    again, _ = run(model, frames, given, change=lambda state: without_one(forget(state)))
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    held = [state.context is not None for state in states]
    assert held == [t not in (0, 3, 4, 6, 8, 9) for t in range(12)]  # the frames that were written


def test_the_test_frame_changes_nothing_of_what_it_sees(model):
    frames = video(4)
    _, states = run(model, frames[:2], {0: TWO})
    state = replace(states[-1], context=None)
    with torch.inference_mode():
        first, second = (model.encode(frame, state).context for frame in (frames[2], 1 - frames[3]))
    for a, b in zip(first.keys_values, second.keys_values, strict=True):
        assert a[0].equal(b[0])
        assert a[1].equal(b[1])


def test_a_read_out_of_objects_together_equals_each_alone(model):
    """The affinity is shared; values do not mix."""
    frames = video(3)
    _, states = run(model, frames[:2], {0: TWO})
    with torch.inference_mode():
        features = model.encode(frames[2], states[-1])
        group = states[-1].groups[0]
        together, _ = model.read(features, torch.zeros(2, dtype=torch.int64), group, 2)
        for row, number in enumerate(group.ids):
            only = group.without(set(group.ids) - {number})
            alone, _ = model.read(features, torch.zeros(1, dtype=torch.int64), only, 2)
            close(together[row : row + 1], alone)


def test_clips_with_absent_objects_equal_clips_without_them(model):
    images = torch.stack([video(3, seed=seed)[:, 0] for seed in range(2)])  # (B, T, 3, H, W)
    masks = torch.stack((*TWO.values(), box(0, 44))).expand(2, -1, -1, -1)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    with torch.inference_mode():
        logits = model(images, masks, valid)  # (B, 2, K + 1, H, W)
        alone = model(images[:1], masks[:1, :2], valid[:1, :2])
    close(logits[:1, :, :3].softmax(2), alone.softmax(2))
    assert logits[0, :, 3].eq(float("-inf")).all()


def test_training_draws_its_references_among_the_frames_before(model, monkeypatch):
    """Two for each video of the batch, once there are more."""
    images = torch.stack([video(5, seed=seed)[:, 0] for seed in range(2)])
    masks, valid = box(0, 5).expand(2, 1, -1, -1), torch.ones(2, 1, dtype=torch.bool)
    drawn, real = [], torch.rand

    def rand(size, **options):
        drawn.append(tuple(size))
        return real(size, **options)

    monkeypatch.setattr(torch, "rand", rand)
    torch.manual_seed(0)
    with torch.inference_mode():
        first = model(images, masks, valid)
        second = model(images, masks, valid)
    assert drawn == [(2, 3), (2, 4)] * 2
    assert first[:, :2].equal(second[:, :2])  # frames 1 and 2 have no choice
    assert not first[:, 2:].equal(second[:, 2:])


ROWS = {
    "without objects": "object_tokens=false",
    "without spatial memory": "references=0",
    "joint attention": "attention=joint",
    "plain blocks and keys": "key_channels=0 object_tokens=false references=0",
    "all cells": "topk=0",
    "three references": "references=3",
    "vit": "backbone=vit_b depths=[3]",
}


def test_every_setting_runs_learns_and_makes_a_difference():
    """Rows of Table 1 among them."""
    size = (32, 48)
    frames, given = video(4, size), {1: box(0, 0, size, 14), 2: box(16, 16, size, 14)}
    masks, seen = torch.stack(list(given.values()))[None], []
    for changes in (*ROWS.values(), ""):
        model = make_small_stma([f"model.stma.{change}" for change in changes.split()])
        probs, states = run(model, frames, {0: given})
        seen.append(probs[-1])
        assert ("spatial" in states[-1].shared) == ("references=0" not in changes)
        logits = model.train()(frames[:2, 0][None], masks, torch.ones(1, 2, dtype=torch.bool))
        logits.square().mean().backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None], changes
    differ = [not torch.allclose(a, b, atol=1e-6) for i, a in enumerate(seen[:-2]) for b in seen[:i]]
    assert all(differ)


@pytest.mark.slow
def test_it_learns_to_follow_two_movers():
    """On two clips, learned by heart: far better than copying the first mask. It says nothing about other video."""
    model, generator = (
        make_small_stma(["model.stma.channels=[16,24,48]"]).train(),
        torch.Generator().manual_seed(1),
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = 0.3 * torch.rand(2, 1, 3, *SIZE, generator=generator).repeat(1, 3, 1, 1, 1)  # (B, T, 3, H, W)
    textures = 0.3 + 0.7 * torch.rand(2, 2, 3, 16, 16, generator=generator)
    labels = torch.zeros(2, 3, *SIZE, dtype=torch.int64)
    for t in range(3):
        for k, (top, left) in enumerate(((4 + 3 * t, 4 + 6 * t), (26 - 2 * t, 40 - 7 * t))):
            images[:, t, :, top : top + 16, left : left + 16] = textures[:, k]
            labels[:, t, top : top + 16, left : left + 16] = k + 1
    masks, valid = (
        torch.stack((labels[:, 0] == 1, labels[:, 0] == 2), dim=1),
        torch.ones(2, 2, dtype=torch.bool),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(61):
        logits = model(images, masks, valid).flatten(0, 1)  # (B (T - 1), K + 1, H, W)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(0, 1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    right = (logits.argmax(1) == labels[:, 1:].flatten(0, 1)).float().mean()
    copied = (labels[:, :1] == labels[:, 1:]).float().mean()
    assert copied < 0.8 and right > 0.96


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_frames_and_the_first_stays():
    size = (32, 32)
    model = make_small_stma(["model.stma.memory_frames=4"])
    frames = video(1, size).expand(2000, -1, -1, -1, -1)
    given = {0: {1: box(4, 4, size, 12)}, 500: {2: box(16, 16, size, 12)}}
    _, states = run(model, frames, given)
    state = states[-1]
    assert state.shared["spatial"].frames == (0, 500, 1998)
    assert [group.banks["temporal"].frames[0] for group in state.groups] == [0, 500]
    assert [len(group.banks["temporal"]) for group in state.groups] == [4, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("channels=[8,12]", "channels must hold 3 numbers"),
        ("depths=[3]", "depths must hold 3 numbers for convvit_b"),
        ("heads=5", "a multiple of 4 and of model.stma.heads"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [*SETTINGS, f"model.stma.{change}"])
