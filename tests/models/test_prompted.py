"""The driver of prompted models, on HMMN."""

import pytest
import torch
import torch.nn.functional as F
from small_hmmn import SETTINGS, make_small_hmmn

import hmhi.models.hmmn as hmmn
from hmhi.config import ConfigError, load_config
from hmhi.errors import UserError
from hmhi.layers.aggregate import soft_aggregate
from hmhi.models.prompted import crop, margins, other_objects, pad

SIZE = (50, 83)


@pytest.fixture(scope="module")
def model():
    return make_small_hmmn()


def video(frames: int, size=SIZE, seed: int = 1) -> torch.Tensor:
    """(T, 1, 3, H, W) of noise that moves one pixel to the right with each frame."""
    still = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return torch.stack([still.roll(t, dims=-1) for t in range(frames)])


def box(top: int, left: int, size=SIZE, side: int = 20) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def run(model, frames, given, state=None, start=0):
    """Probabilities of each frame from `start` on, and the state after the last; `given` by frame number."""
    state, probs = state or model.start(), []
    with torch.inference_mode():
        for t in range(start, len(frames)):
            prob, state = model.step(frames[t], state, given.get(t))
            probs.append(prob)
    return probs, state


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_first_frame_is_the_given_mask(model):
    masks = {7: box(5, 5), 3: box(5, 40)}
    (prob,), state = run(model, video(1), {0: masks})
    assert state.ids == (7, 3)
    assert state.size == SIZE
    expected = torch.stack((~(masks[7] | masks[3]), masks[7], masks[3])).float()
    assert torch.equal(prob, expected)


def test_probabilities_sum_to_one_and_the_state_is_a_value(model):
    frames = video(5)
    probs, state = run(model, frames[:4], {0: {1: box(5, 5), 2: box(25, 40)}})
    close(torch.stack(probs).sum(1), torch.ones(4, *SIZE))
    again = [run(model, frames, {}, state, start=4)[0][0] for _ in range(2)]
    assert torch.equal(*again)
    assert state.groups[0].banks["coarse"].frames == (0, 3)


def test_objects_in_rows_equal_objects_alone_that_know_of_each_other(model, monkeypatch):
    """K rows are K single calls, each told where the others are, merged."""
    frames, masks = video(3), {1: box(5, 5), 2: box(25, 40), 3: box(0, 60)}
    together, _ = run(model, frames, {0: masks})
    soft = torch.stack(list(masks.values())).float()  # (K, H, W)
    groups = [model.begin(0, [number]) for number in masks]
    owner = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        state = model.start()
        for t in range(3):
            if t > 0:
                features = model.encode(frames[t], state)
                reads = [model.read(features, owner, group, t) for group in groups]
                groups = [group for _, group in reads]
                alone = soft_aggregate(crop(torch.cat([prob for prob, _ in reads]), SIZE, 16))[0].softmax(0)
                close(together[t], alone)
                soft = alone[1:]
            features, padded = model.encode(frames[t], state), pad(soft, 16)
            for k, group in enumerate(groups):
                others = (padded.sum(0) - padded[k]).clamp(0, 1)[None]
                groups[k] = model.write(features, owner, group, padded[k : k + 1], others, t, pinned=t == 0)
            state = run(model, video(1), {0: masks})[1]  # any state that has groups


def test_padding_is_black_and_not_ours_to_see(model):
    """A frame with a black border that makes both sides multiples gives the same numbers inside."""
    frames, mask = video(4), box(5, 5)
    left, right, top, bottom = margins(SIZE, 16)
    assert (left, right, top, bottom) == (6, 7, 7, 7)
    probs, _ = run(model, frames, {0: {1: mask}})
    padded, _ = run(model, F.pad(frames, (6, 7, 7, 7)), {0: {1: F.pad(mask, (6, 7, 7, 7))}})
    # beyond the border nothing is predicted in ours; the second frame has not heard of that yet
    close(probs[1], padded[1][:, 7:57, 6:89])


def test_before_the_first_mask_all_is_background_and_nothing_runs(model, monkeypatch):
    monkeypatch.setattr(hmmn.HMMN, "encode", lambda *_: pytest.fail("the network ran"))
    probs, state = run(model, video(3), {})
    assert all(torch.equal(prob, torch.ones(1, *SIZE)) for prob in probs)
    assert (state.frame, state.ids) == (3, ())


def test_a_later_object_has_a_memory_of_its_own(model):
    frames = video(9)
    probs, state = run(model, frames, {0: {4: box(5, 5)}, 3: {9: box(25, 40)}})
    assert [len(prob) for prob in probs] == [2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert [(group.start, group.ids) for group in state.groups] == [(0, (4,)), (3, (9,))]
    first, later = (group.banks for group in state.groups)
    assert first["coarse"].frames == (0, 5, 8)
    assert later["coarse"].frames == (3, 5, 8)  # its own first frame, then the video's every fifth
    assert later["fine"].frames == (3, 8)


def test_a_group_begun_late_equals_a_video_begun_late(model):
    """As long as the interval, which counts frames of the video, makes no difference."""
    frames = video(7)
    whole, _ = run(model, frames, {3: {1: box(5, 5)}})
    late, _ = run(model, frames[3:], {0: {1: box(5, 5)}})
    for ours, expected in zip(whole[3:], late, strict=True):
        close(ours, expected)


def test_a_correction_stands_above_predictions_and_is_remembered_for_good(model):
    frames, corrected = video(8), box(20, 30)
    plain, _ = run(model, frames, {0: {1: box(5, 5), 2: box(5, 50)}})
    probs, state = run(model, frames, {0: {1: box(5, 5), 2: box(5, 50)}, 3: {1: corrected}})
    close(probs[2], plain[2])
    assert torch.equal(probs[3][1], corrected.float())
    assert probs[3][2][corrected].eq(0).all()  # where object 1 is, object 2 is not
    close(probs[3][2][~corrected], plain[3][2][~corrected])
    close(probs[3].sum(0), torch.ones(SIZE))
    assert state.groups[0].banks["fine"].frames == (0, 3, 7)
    assert state.groups[0].banks["coarse"].frames == (0, 3, 5, 7)


def test_removing_an_object_leaves_the_others_as_their_memory_has_them(model):
    frames = video(4)
    _, state = run(model, frames[:3], {0: {1: box(5, 5), 2: box(25, 40), 3: box(0, 60)}})
    left = state.without([2])
    assert left.ids == (1, 3)
    prob, after = run(model, frames, {}, left, start=3)
    assert len(prob[0]) == 3
    assert after.groups[0].banks["coarse"].slots[-1].rows == 2
    gone = state.without([1, 2, 3])
    prob, _ = run(model, frames, {}, gone, start=3)
    assert torch.equal(prob[0], torch.ones(1, *SIZE))


def test_the_last_frame_need_not_be_written(model):
    frames = video(3)
    _, state = run(model, frames[:2], {0: {1: box(5, 5)}})
    with torch.inference_mode():
        prob, after = model.step(frames[2], state, write=False)
    assert torch.equal(prob, run(model, frames, {0: {1: box(5, 5)}})[0][2])
    assert after.groups[0].banks["coarse"].frames == (0, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({1: torch.zeros(SIZE, dtype=torch.bool)}, "object 1 at frame 0 is empty"),
        ({1: box(0, 0, (32, 32))}, r"object 1 at frame 0 must be bool of shape \(50, 83\)"),
        ({1: box(0, 0).float()}, "must be bool"),
        ({1: box(0, 0), 5: box(10, 10)}, "object 5 at frame 0 overlaps"),
    ],
)
def test_masks_that_cannot_be_are_refused(model, given, message):
    with pytest.raises(UserError, match=message):
        run(model, video(1), {0: given})


def test_others_are_those_of_the_same_video():
    masks = torch.tensor([0.5, 0.25, 0.75, 1.0, 1.0])[:, None, None]
    others = other_objects(masks, torch.tensor([0, 0, 1, 1, 1]), 2)
    assert others.flatten().tolist() == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_batch_of_clips_with_absent_objects(model):
    """Clips with one, two and three objects together equal each alone, and absent channels are -inf."""
    images = torch.stack([video(3, (64, 64), seed)[:, 0] for seed in range(3)])  # (B, T, 3, H, W)
    masks = torch.stack([box(5, 5, (64, 64)), box(30, 5, (64, 64)), box(30, 40, (64, 64))]).expand(
        3, -1, -1, -1
    )
    valid = torch.tensor([[True, False, False], [True, False, True], [True, True, True]])
    with torch.inference_mode():
        logits = model(images, masks, valid)  # (B, 2, K + 1, H, W)
        for i in range(3):
            present = [0, *(k + 1 for k in range(3) if valid[i, k])]
            absent = [k + 1 for k in range(3) if not valid[i, k]]
            alone = model(images[i : i + 1], masks[i : i + 1, valid[i]], valid[i : i + 1, valid[i]])
            close(logits[i : i + 1, :, present].softmax(2), alone.softmax(2))
            assert logits[i, :, absent].eq(float("-inf")).all()


def test_gradients_reach_the_first_prediction_unless_detached():
    """Through the soft mask that frame 1 writes, into what frame 2 reads."""
    images, masks = video(3, (64, 64))[:, 0][None], box(20, 20, (64, 64))[None, None]
    valid = torch.ones(1, 1, dtype=torch.bool)
    norms = []
    for detach in (False, True):
        model = make_small_hmmn([f"model.hmmn.detach_masks={detach}"])
        logits = model(images, masks, valid)
        logits[:, 1].square().mean().backward()  # of frame 2 alone
        norms.append(model.decoder.predict.weight.grad.norm())
    assert not torch.isclose(*norms)


def test_dropout_of_fine_reads_is_drawn_for_each_clip(monkeypatch):
    model = make_small_hmmn()
    images, masks = (
        video(2, (64, 64))[:, 0][None].expand(2, -1, -1, -1, -1),
        box(20, 20, (64, 64)).expand(2, 2, 64, 64),
    )
    valid, draws = torch.ones(2, 2, dtype=torch.bool), torch.tensor([0.2, 0.9])
    plain = model(images, masks, valid)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    logits = model(images, masks, valid, dropout=0.5)
    close(logits[1], plain[1])  # kept as it is, not rescaled
    assert not torch.allclose(logits[0], plain[0], atol=1e-4)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_memory_does_not_grow_with_the_length_of_a_video():
    model = make_small_hmmn(["model.hmmn.memory_frames=3", "model.hmmn.memory_interval=2"])
    frames = video(1, (32, 32)).expand(40, -1, -1, -1, -1)
    _, state = run(model, frames, {0: {1: box(4, 4, (32, 32))}})
    assert state.groups[0].banks["coarse"].frames == (0, 36, 38, 39)
    assert state.groups[0].banks["fine"].frames == (0, 39)


def test_settings_of_another_kind_are_refused():
    with pytest.raises(
        ConfigError, match=r"model\.memory_topk belongs to kind hmhi, but model\.kind is hmmn"
    ):
        load_config(None, [*SETTINGS, "model.memory_topk=3"])
    with pytest.raises(ConfigError, match=r"model\.hmmn belongs to kind hmmn"):
        load_config(None, ["model.hmmn.topk=3"])
