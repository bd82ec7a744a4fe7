"""Objects through real frames and noise, with small untrained networks: plumbing, not accuracy."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from small_hmmn import save_small_hmmn
from small_model import save_small_checkpoint
from small_stma import save_small_stma

import hmhi
from hmhi.errors import UserError
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.sources import SourceFrame
from hmhi.media.masks import read_labels, write_labels

SIZE = (48, 70)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_hmmn(tmp_path_factory.mktemp("model") / "hmmn.pt")


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return ObjectSegmenter(checkpoint, "cpu", short_side=48)


def video(frames, size=SIZE):
    still = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    return [np.roll(still, t, axis=1) for t in range(frames)]


def box(top, left, side=20, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def labels_of(**masks):
    labels = np.zeros(SIZE, np.uint8)
    for name, mask in masks.items():
        labels[mask] = int(name[1:])
    return labels


def same(first, second):
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        assert (ours.index, ours.ids, ours.given) == (theirs.index, theirs.ids, theirs.given)
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(ours.probs, theirs.probs)


TWO = labels_of(o7=box(5, 5), o3=box(5, 40))


def test_a_stream_keeps_the_ids_of_the_mask(segmenter):
    results = list(segmenter.stream(video(3), TWO))
    assert [result.index for result in results] == [0, 1, 2]
    assert [result.given for result in results] == [(3, 7), (), ()]
    assert np.array_equal(results[0].labels, TWO)
    for result in results:
        assert result.ids == (3, 7)
        assert result.probs.shape == (2, *SIZE) and result.probs.dtype == np.float32
        assert set(np.unique(result.labels)) <= {0, 3, 7}
        assert np.array_equal(result.mask_of(7), result.labels == 7)
        # an object is where it is likelier than the others and the background
        winner = result.probs.argmax(0)
        assert np.array_equal(result.prob_of(7)[result.mask_of(7)], result.probs[1][result.mask_of(7)])
        assert (winner[result.mask_of(7)] == 1).all()
    assert results[-1].mask.any() and not results[-1].mask.all()


def test_a_session_gives_what_a_stream_gives(segmenter):
    frames, late = video(4), {2: {9: box(25, 20)}}
    streamed = list(segmenter.stream(frames, {0: TWO, **late}))
    session = segmenter.session()
    stepped = [session.step(frame, {0: TWO, **late}.get(t)) for t, frame in enumerate(frames)]
    same(stepped, streamed)
    assert session.ids == (3, 7, 9)
    assert streamed[2].given == (9,) and streamed[1].ids == (3, 7)


@pytest.mark.parametrize("kind", ["hmmn", "stma"])
def test_sessions_are_values_and_objects_come_and_go(kind, segmenter, tmp_path):
    if kind == "stma":
        segmenter = ObjectSegmenter(save_small_stma(tmp_path / "stma.pt"), "cpu", short_side=48)
    frames = video(6)
    session = segmenter.session()
    session.step(frames[0], TWO)
    session.step(frames[1])
    other = session.copy()
    session.remove([3])
    assert session.ids == (7,) and other.ids == (3, 7)
    left = session.step(frames[2])
    assert set(np.unique(left.labels)) <= {0, 7} and left.probs.shape[0] == 1
    corrected = session.step(frames[3], {7: box(20, 10)})
    assert np.array_equal(corrected.mask_of(7), box(20, 10)) and corrected.given == (7,)
    same([other.step(frames[2])], [list(segmenter.stream(frames[:3], TWO))[2]])
    with pytest.raises(UserError, match=r"no object has the number 4; there are \[7\]"):
        session.remove([7, 4])
    session.remove([7])
    assert not session.step(frames[4]).mask.any()  # all is background, and the network does not run
    assert session.step(frames[5], {1: box(0, 0)}).ids == (1,)


def test_what_a_session_refuses_leaves_it_as_it_was(segmenter):
    frames = video(3)
    session, calm = segmenter.session(), segmenter.session()
    for one in (session, calm):
        one.step(frames[0], TWO)
    for frame, mask, text in (
        (frames[1][:20], None, "frame 1 has shape"),
        (frames[1].astype(float), None, "frame 1: expected a picture"),
        (frames[1], TWO[:20], "the mask of frame 1: the mask is 70 x 20, but the frame 70 x 48"),
        (frames[1], TWO * 0, "the mask of frame 1: the mask is empty"),
        (frames[1], {7: box(0, 0) & False}, "object 7 has no pixel"),
    ):
        with pytest.raises(UserError, match=text):
            session.step(frame, mask)
    same([session.step(frames[1])], [calm.step(frames[1])])


def test_frames_before_the_first_mask_are_background(segmenter):
    results = list(segmenter.stream(video(4), {2: {5: box(5, 5)}}))
    assert [result.ids for result in results] == [(), (), (5,), (5,)]
    assert not results[1].mask.any() and results[1].prob.shape == SIZE
    assert np.array_equal(results[2].mask_of(5), box(5, 5))
    # a group begins with its first frame: as if the video began there
    alone = list(segmenter.stream(video(4)[2:], {0: {5: box(5, 5)}}))
    assert np.array_equal(results[3].labels, alone[1].labels)


def test_only_some_frames_and_some_objects(segmenter):
    results = list(segmenter.stream(video(8), TWO, start=1, every=3, objects=[7]))
    assert [result.index for result in results] == [1, 4, 7]
    assert all(result.ids == (7,) for result in results)
    assert np.array_equal(results[0].labels, np.where(TWO == 7, TWO, 0))


def test_no_object_at_a_frame_that_is_read(segmenter, caplog):
    with pytest.raises(UserError, match=r"no mask of the masks shows an object at a frame that is read"):
        list(segmenter.stream(video(4), {3: TWO}, end=3))
    list(segmenter.stream(video(2), {0: {7: box(0, 0)}, 1: {3: box(0, 40)}}, end=1, objects=[3, 7]))
    assert "object 3 is wanted, but no mask" in caplog.text


def test_complete_truth_counts_as_the_first_mask_alone(segmenter, tmp_path):
    folder = tmp_path / "walk"
    folder.mkdir()
    for t, frame in enumerate(video(4)):
        Image.fromarray(frame).save(folder / f"{t:05d}.png")
        write_labels(tmp_path / "truth" / f"{t:05d}.png", np.roll(TWO, t, axis=1))
    alone = list(segmenter.stream(folder, tmp_path / "truth" / "00000.png"))
    same(list(segmenter.stream(folder, tmp_path / "truth")), alone)
    corrected = list(segmenter.stream(folder, tmp_path / "truth", use_masks="all"))
    assert np.array_equal(corrected[3].labels, read_labels(tmp_path / "truth" / "00003.png"))


def test_another_size_of_the_input_and_given_masks_at_full_size(checkpoint, segmenter):
    small = ObjectSegmenter(checkpoint, "cpu", short_side=32)
    assert small.input_size(48, 70) == (32, 47)
    results = list(small.stream(video(3), TWO))
    assert np.array_equal(results[0].labels, TWO)
    assert results[2].labels.shape == SIZE
    thin = box(0, 0) & False
    thin[0, 0] = True
    with pytest.raises(UserError, match="frame 0: object 2 has 1 pixels, and none is left"):
        list(ObjectSegmenter(checkpoint, "cpu", short_side=16).stream(video(1), {0: {2: thin}}))
    assert ObjectSegmenter(checkpoint, "cpu").input_size(720, 1280) == (480, 853)


def test_results_are_copies_and_streams_may_run_at_once(segmenter):
    frames = video(2)
    expected = list(segmenter.stream(frames, TWO))
    for result in segmenter.stream(frames, TWO):
        result.frame[:] = 0
    first, second = segmenter.stream(frames, TWO), segmenter.stream(frames, TWO)
    both = list(zip(first, second, strict=True))
    same([one for one, _ in both], expected)
    same([two for _, two in both], expected)


def test_a_stream_that_is_closed_leaves_no_thread(segmenter):
    results = segmenter.stream(video(20), TWO)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_what_is_remembered_does_not_grow_with_the_video(checkpoint):
    segmenter = ObjectSegmenter(
        checkpoint,
        "cpu",
        short_side=16,
        overrides=["model.hmmn.memory_frames=2", "model.hmmn.memory_interval=1"],
    )
    state, held = segmenter.model.start(), []
    for t, image in enumerate(video(9, (16, 20))):
        given = {1: box(2, 2, 8, (16, 20))} if t == 0 else {}
        frame = segmenter.prepare(SourceFrame(t, None, image), given, 0.0)
        _, state = segmenter.advance(frame, state)
        held.append(sum(len(bank.frames) for bank in state.groups[0].banks.values()))
    assert held[0] < held[3] == held[8]


def test_each_class_refuses_the_other_network_and_open_segmenter_takes_the_right_one(checkpoint, tmp_path):
    unprompted = save_small_checkpoint(tmp_path / "hmhi.pt")
    with pytest.raises(UserError, match=r"hmmn.pt holds HMMN, which follows objects .* hmhi.ObjectSegmenter"):
        VideoSegmenter(checkpoint, "cpu")
    with pytest.raises(UserError, match=r"hmhi.pt holds HMHI-Net, which finds .* use hmhi.VideoSegmenter"):
        ObjectSegmenter(unprompted, "cpu")
    opened = hmhi.open_segmenter(checkpoint, "cpu", short_side=32)
    assert isinstance(opened, hmhi.ObjectSegmenter) and opened.traits.kind == "hmmn"
    assert isinstance(hmhi.open_segmenter(unprompted, "cpu"), VideoSegmenter)
    assert isinstance(hmhi.open_segmenter(device="cpu"), VideoSegmenter)


def test_real_frames_of_two_sequences_side_by_side(checkpoint, shared_data):
    """Two objects of DAVIS in one picture; an untrained network shows that all is wired up, and no more."""
    davis = shared_data / "davis16"
    frames, masks = [], []
    for t in range(3):
        names = [f"{name}/{t:05d}" for name in ("bear", "camel")]
        parts = [
            Image.open(davis / "JPEGImages" / "480p" / f"{name}.jpg").resize((214, 120)) for name in names
        ]
        frames.append(np.concatenate([np.array(part) for part in parts], axis=1))
        truth = [read_labels(davis / "Annotations" / "480p" / f"{name}.png")[::4, ::4] for name in names]
        masks.append(np.concatenate([truth[0][:, :214] * 4, truth[1][:, :214] * 9], axis=1))
    results = list(ObjectSegmenter(checkpoint, "cpu", short_side=120).stream(frames, masks[0]))
    assert np.array_equal(results[0].labels, masks[0])
    assert all(result.ids == (4, 9) and result.labels.shape == (120, 428) for result in results)
    assert torch.isfinite(torch.from_numpy(results[2].probs)).all()
