import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Lock

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import save_small_checkpoint

from hmhi.data.transforms import resize_rgb
from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.compensate import join_directions
from hmhi.flow.estimate import build_estimator
from hmhi.flow.files import read_flow_rgb
from hmhi.inference.base import find_device
from hmhi.inference.positions import Position
from hmhi.inference.refine import refine_edges
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.sources import open_source
from hmhi.media.pictures import read_rgb
from hmhi.runtime.frames import to_probability
from hmhi.runtime.precision import amp_precision


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt")


def frames(count, size=(48, 70)):
    """A bright square that moves over noise."""
    ground = np.random.default_rng(0).integers(0, 120, (*size, 3), dtype=np.uint8)
    for t in range(count):
        frame = ground.copy()
        frame[10:30, 5 + 3 * t : 25 + 3 * t] = 250
        yield frame


def test_one_result_for_each_frame_at_its_size(checkpoint):
    results = list(VideoSegmenter(checkpoint).stream(frames(4)))
    assert [result.index for result in results] == [0, 1, 2, 3]
    for result in results:
        assert result.mask.shape == result.prob.shape == (48, 70)
        assert result.mask.dtype == bool
        assert 0 <= result.prob.min() <= result.prob.max() <= 1
        assert np.array_equal(result.mask, result.prob > 0.5)


def test_streaming_equals_the_model_on_the_whole_clip(checkpoint):
    from hmhi.data.transforms import normalize, to_input

    segmenter = VideoSegmenter(checkpoint)
    clip = list(frames(3))
    flows = [flow_to_rgb(segmenter.estimator(a, b)) for a, b in itertools.pairwise(clip)]
    flows.append(flows[-1])
    images, motions = (
        torch.stack([normalize(to_input(x, segmenter.input_size(48, 70))) for x in xs])[None]
        for xs in (clip, flows)
    )
    with torch.inference_mode():
        expected = to_probability(segmenter.model(images, motions)[0], (48, 70))
    for result, prob in zip(segmenter.stream(clip), expected, strict=True):
        np.testing.assert_allclose(result.prob, prob[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("look_ahead", [1, 4])
def test_no_more_than_a_few_frames_are_read_ahead(checkpoint, look_ahead):
    taken = 0

    def source():
        nonlocal taken
        for frame in frames(40):
            taken += 1
            yield frame

    for number, _ in enumerate(VideoSegmenter(checkpoint, look_ahead=look_ahead).stream(source())):
        assert taken <= number + 1 + 3 * max(2, look_ahead) + 4
    assert taken == 40


def test_memory_does_not_grow_with_length(checkpoint):
    """After the bank is full, no step holds more tensors than the one before."""
    segmenter = VideoSegmenter(checkpoint, memory_frames=2)
    banks = []
    advance = segmenter.model.advance

    def watched(*args, **kwargs):
        logits, memory = advance(*args, **kwargs)
        banks.append(sum(len(bank) for bank in memory.banks.values()))
        return logits, memory

    segmenter.model.advance = watched
    for _ in segmenter.stream(frames(6)):
        pass
    assert banks == [2, 4, 4, 4, 4, 4]


@pytest.mark.slow  # the test before counts the frames that are held
def test_500_frames_take_no_more_memory_than_50(tmp_path):
    """Peak resident memory of real processes, in which 450 frames take 207 MB."""
    light = ["model.memory_stages=[2]", "model.high_to_shallow=none", "model.shallow_to_high=none"]
    checkpoint = save_small_checkpoint(tmp_path / "best.pt", light)
    code = (
        "import sys, resource, numpy as np\n"
        "from hmhi.runtime.allocator import keep_pages\n"
        "from hmhi.inference.segmenter import VideoSegmenter\n"
        "keep_pages()\n"  # as the command does
        "still = lambda a, b: np.zeros((*a.shape[:2], 2), np.float32)\n"
        "frames = (np.full((320, 480, 3), t % 250, np.uint8) for t in range(int(sys.argv[2])))\n"
        "segmenter = VideoSegmenter(sys.argv[1], 'cpu', flow=still, image_size=32)\n"
        "print(sum(1 for _ in segmenter.stream(frames)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(checkpoint), str(count)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for count in (50, 500)
    ]
    (short, peak_short), (long, peak_long) = (map(int, run.communicate()[0].split()) for run in runs)
    assert (short, long) == (50, 500)
    assert (peak_long - peak_short) * (1 if sys.platform == "darwin" else 1024) < 50e6


def test_stored_flow_is_used(checkpoint):
    segmenter = VideoSegmenter(checkpoint)
    white = [np.full((48, 70, 3), 255, dtype=np.uint8)] * 3
    stored = [result.prob for result in segmenter.stream(frames(3), white)]
    computed = [result.prob for result in segmenter.stream(frames(3))]
    assert not np.allclose(stored, computed, atol=1e-4)


def test_stored_flow_may_be_files_and_is_matched_by_number(checkpoint, tmp_path):
    segmenter = VideoSegmenter(checkpoint)
    pictures = [np.full((48, 70, 3), 40 * t, np.uint8) for t in range(6)]
    paths = [tmp_path / f"{t}.png" for t in range(6)]
    for path, array in zip(paths, pictures, strict=True):
        Image.fromarray(array).save(path)
    for flows in (pictures, paths, iter(paths)):
        results = list(segmenter.stream(frames(6), flows, start=1, every=3))
        assert [(result.index, result.flow[0, 0, 0]) for result in results] == [(1, 40), (4, 160)]
    with pytest.raises(ValueError, match="frame 3 has no stored flow"):
        list(segmenter.stream(frames(6), pictures[:3]))


def right_by_the_next_frame(frame_a, frame_b):
    """A flow estimator: colours of the result tell which two frames it was given."""
    flow = np.zeros((*frame_a.shape[:2], 2), np.float32)
    flow[0, 0] = frame_a[0, 0, 0], frame_b[0, 0, 0]
    return flow


def grey(*levels, size=(40, 40)):
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def read_pairs(results, candidates=(10, 70, 20, 50, 30, 60)):
    """Which frames the flow of each result was computed from; None for no motion."""
    pairs = list(itertools.permutations(candidates, 2))
    colours = {flow_to_rgb(np.array([[pair]], np.float32)).tobytes(): pair for pair in pairs}
    return [colours.get(result.flow[0, 0].tobytes()) for result in results]


def test_flow_leads_to_the_next_frame_and_the_last_one_repeats(checkpoint):
    segmenter = VideoSegmenter(checkpoint, flow=right_by_the_next_frame)
    assert read_pairs(segmenter.stream(grey(10, 70, 20))) == [(10, 70), (70, 20), (70, 20)]
    assert read_pairs(segmenter.stream(grey(10))) == [None]
    kept = list(segmenter.stream(grey(10, 70, 20, 50, 30), every=2))
    assert [result.index for result in kept] == [0, 2, 4]
    assert read_pairs(kept) == [(10, 70), (20, 50), (20, 50)]
    assert read_pairs(segmenter.stream(grey(10, 70, 20, 50), end=2)) == [(10, 70), (70, 20)]


def test_a_batch_estimator_gets_look_ahead_batches(checkpoint):
    sizes = []

    class Estimator:
        def __call__(self, a, b):
            raise AssertionError("one by one")

        def batch(self, a, b):
            sizes.append(len(a))
            return np.stack([right_by_the_next_frame(*pair) for pair in zip(a, b, strict=True)])

    segmenter = VideoSegmenter(checkpoint, flow=Estimator(), look_ahead=3)
    pairs = read_pairs(segmenter.stream(grey(10, 70, 20, 50, 30, 60)))
    assert pairs == [(10, 70), (70, 20), (20, 50), (50, 30), (30, 60), (30, 60)]
    assert sizes == [3, 2]


def test_scene_cuts_reset_memory_and_flow(checkpoint):
    segmenter = VideoSegmenter(checkpoint, flow=right_by_the_next_frame)
    first, second = list(frames(3)), list(frames(4))
    for frame in second:
        frame[..., 2] = 255 - frame[..., 2]  # other colours altogether
    joined = [*first, *second]
    together = list(segmenter.stream(joined, scene_cuts=True))
    assert [result.scene_cut for result in together] == [False, False, False, True, False, False, False]
    apart = [*segmenter.stream(first), *segmenter.stream(second)]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one.flow, other.flow)
        np.testing.assert_array_equal(one.prob, other.prob)
    assert not any(result.scene_cut for result in segmenter.stream(joined))
    alone = list(segmenter.stream([*first, second[0], *first], scene_cuts=True))
    assert [result.scene_cut for result in alone] == [False, False, False, True, True, False, False]
    assert (alone[3].flow == 255).all()  # a scene of one frame has no flow at all


BOTH = ("data.flow_direction=both", "data.compensation=affine")


def test_both_directions_are_joined(checkpoint):
    segmenter = VideoSegmenter(checkpoint, overrides=BOTH)
    estimator = build_estimator("dis")  # the segmenter's own one is busy in another thread
    clip = list(frames(6))

    def expected(t, following=True, previous=True):
        forward = estimator(clip[t], clip[t + 1]) if following else None
        backward = estimator(clip[t], clip[t - 1]) if previous else None
        return flow_to_rgb(forward if backward is None else join_directions(forward, backward, "affine"))

    results = list(segmenter.stream(clip))
    for t, result in enumerate(results):
        np.testing.assert_array_equal(result.flow, expected(t, following=t < 5, previous=t > 0))
    for start, every, end in ((1, 2, 5), (0, 3, 6)):
        for result in segmenter.stream(clip, start=start, every=every, end=end):
            np.testing.assert_array_equal(result.flow, expected(result.index, True, result.index > start))
    cut = [*clip[:3], 255 - clip[3], *clip[:3]]
    for t, result in enumerate(segmenter.stream(cut, scene_cuts=True)):
        if t == 3:
            assert (result.flow == 255).all()
        else:
            t %= 4
            np.testing.assert_array_equal(result.flow, expected(t, following=t < 2, previous=t > 0))
    assert (next(segmenter.stream(clip[:1])).flow == 255).all()
    many = [result for number, result in segmenter.segment_many([clip, clip[:4]]) if number == 0]
    for one, other in zip(many, results, strict=True):
        np.testing.assert_array_equal(one.flow, other.flow)


def test_a_batch_estimator_gets_both_directions_at_once(checkpoint):
    sizes = []

    class Estimator:
        def __call__(self, a, b):
            return right_by_the_next_frame(a, b)

        def batch(self, a, b):
            sizes.append(len(a))
            return np.stack([right_by_the_next_frame(*pair) for pair in zip(a, b, strict=True)])

    clip = grey(10, 70, 20, 50, 30, 60)
    ahead, alone = (
        list(VideoSegmenter(checkpoint, flow=Estimator(), look_ahead=n, overrides=BOTH).stream(clip))
        for n in (3, 1)
    )
    assert sizes[:2] == [5, 5]
    for one, other in zip(ahead, alone, strict=True):
        np.testing.assert_array_equal(one.flow, other.flow)


@pytest.mark.parametrize("look_ahead", [2, 5])
def test_looking_ahead_changes_nothing(checkpoint, look_ahead):
    plain = VideoSegmenter(checkpoint).stream(frames(7))
    for one, other in zip(
        plain, VideoSegmenter(checkpoint, look_ahead=look_ahead).stream(frames(7)), strict=True
    ):
        assert one.index == other.index
        np.testing.assert_allclose(one.prob, other.prob, atol=1e-5)


def test_frames_before_a_failure_come_before_it(checkpoint):
    def source():
        yield from frames(4)
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(result.index for result in VideoSegmenter(checkpoint, look_ahead=3).stream(source()))
    assert len(seen) >= 3
    assert seen == list(range(len(seen)))


def test_a_failing_estimator_is_named_live(checkpoint):
    def fails(first, second):
        raise RuntimeError("no weights")

    segmenter = VideoSegmenter(checkpoint, flow=fails)
    first, second = frames(2)
    segmenter.step(first)
    with pytest.raises(ValueError, match="flow of frame 1 cannot be computed: no weights"):
        segmenter.step(second)


@pytest.mark.parametrize(("short_side", "tta"), [(None, "none"), (64, "flip")])
def test_many_videos_are_what_they_are_alone(checkpoint, short_side, tta):
    """Lengths differ, one has another shape, and one is cut into scenes."""
    segmenter = VideoSegmenter(checkpoint, short_side=short_side, tta=tta, refine="guided")
    cut = [*frames(2), *(255 - frame for frame in frames(3))]
    videos = [list(frames(6)), list(frames(1)), cut, list(frames(4, (90, 50)))]
    batches = []
    encode = segmenter.model.encode

    def watched(image, flow):
        batches.append(len(image))
        return encode(image, flow)

    segmenter.model.encode = watched
    together = {number: [] for number in range(len(videos))}
    for number, result in segmenter.segment_many(videos, scene_cuts=True):
        together[number].append(result)
    assert max(batches) == (4 if short_side is None else 3) * segmenter.views
    segmenter.model.encode = encode
    for number, video in enumerate(videos):
        alone = list(segmenter.stream(video, scene_cuts=True))
        assert [result.index for result in together[number]] == list(range(len(video)))
        for one, other in zip(together[number], alone, strict=True):
            np.testing.assert_allclose(one.prob, other.prob, atol=1e-5)
            assert one.scene_cut == other.scene_cut
    assert list(segmenter.segment_many([])) == []


def mirrored(clip, flows):
    """A video seen in a mirror: motion to the right is motion to the left, at the other side."""
    return [frame[:, ::-1] for frame in clip], [flow[:, ::-1] * np.float32([-1, 1]) for flow in flows]


def test_flip_is_the_mean_of_the_video_and_its_mirror_image(checkpoint):
    """Each with a memory of its own; so the mirrored video gives the mirrored result, and a symmetric one itself."""
    y, x = np.mgrid[:48, :70].astype(np.float32) / 48
    clip = list(frames(2))
    fields = [np.stack([np.cos(2 * x + y + t), np.sin(x - 3 * y + t)], axis=2) for t in range(2)]
    other_clip, other_fields = mirrored(clip, fields)
    flows, other_flows = ([flow_to_rgb(field) for field in each] for each in (fields, other_fields))

    def probs(tta, video, pictures):
        return np.stack([r.prob for r in VideoSegmenter(checkpoint, tta=tta).stream(video, pictures)])

    plain, other = probs("none", clip, flows), probs("none", other_clip, other_flows)[:, :, ::-1]
    flipped = probs("flip", clip, flows)
    difference = np.abs(plain - other).max()
    assert difference > 0.01
    np.testing.assert_allclose(flipped, (plain + other) / 2, atol=difference / 10)  # flow colours are rounded

    symmetric = [np.hstack([frame[:, :35], frame[:, 34::-1]]) for frame in clip]
    still = [np.full_like(frame, 255) for frame in clip]
    result = probs("flip", symmetric, still)
    np.testing.assert_allclose(result, result[:, :, ::-1], atol=1e-5)
    lopsided = probs("none", symmetric, still)
    assert np.abs(lopsided - lopsided[:, :, ::-1]).max() > 0.01


def test_refined_probabilities(checkpoint):
    """The filter comes after the enlargement and before the threshold; auto spares what is sharp already."""
    clip = list(frames(2, (160, 240)))

    def results(refine, size):
        return list(VideoSegmenter(checkpoint, refine=refine, image_size=size).stream(clip))

    for plain, refined in zip(results("none", 64), results("auto", 64), strict=True):
        expected = refine_edges(plain.frame, plain.prob, (64, 64))
        np.testing.assert_array_equal(refined.prob, expected)
        assert np.abs(expected - plain.prob).max() > 0.001
        np.testing.assert_array_equal(refined.mask, expected > 0.5)
    for plain, sharp in zip(results("none", 160), results("auto", 160), strict=True):
        np.testing.assert_array_equal(sharp.prob, plain.prob)


def test_quality_yields_to_what_is_said(checkpoint):
    """And what it cannot be is said in one line."""
    best = VideoSegmenter(checkpoint, quality="best", flow="dis").config
    assert (best.flow, best.refine, best.tta) == ("dis", "auto", "flip")
    assert VideoSegmenter(checkpoint, quality="best", overrides=["infer.flow=dis"]).config.flow == "dis"
    fast = VideoSegmenter(checkpoint, quality="fast", refine="guided", overrides=["infer.tta=flip"]).config
    assert (fast.flow, fast.refine, fast.tta) == ("dis", "guided", "flip")
    with pytest.raises(UserError, match="unknown quality 'good'; choose one of fast, best"):
        VideoSegmenter(checkpoint, quality="good")
    with pytest.raises(UserError, match=r"infer\.refine"):
        VideoSegmenter(checkpoint, refine="soft")
    with pytest.raises(UserError, match=r"infer\.tta"):
        VideoSegmenter(checkpoint, tta="rotate")


def test_videos_that_a_scene_cut_parts_meet_again(checkpoint):
    """Once, each cut left one batch more for good."""
    segmenter = VideoSegmenter(checkpoint, memory_frames=2)
    videos = [list(frames(9)), [*frames(3), *(255 - frame for frame in frames(6))]]
    expected = [[result.prob for result in segmenter.stream(video, scene_cuts=True)] for video in videos]
    batches, encode = [], segmenter.model.encode

    def watched(image, flow):
        batches.append(len(image))
        return encode(image, flow)

    segmenter.model.encode = watched
    together = [[], []]
    for number, result in segmenter.segment_many(videos, scene_cuts=True):
        together[number].append(result.prob)
    assert batches == [2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2]
    np.testing.assert_allclose(together, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tta": "flip", "refine": "guided"}])
def test_live_steps(checkpoint, options):
    """Flow is minus that to the frame before; each video begins anew."""
    segmenter = VideoSegmenter(checkpoint, **options)
    clip = list(frames(3))
    results = [segmenter.step(frame) for frame in clip]
    assert [result.index for result in results] == [0, 1, 2]
    assert (results[0].flow == 255).all()
    flows = [result.flow for result in results]
    np.testing.assert_array_equal(flows[2], flow_to_rgb(-segmenter.estimator(clip[2], clip[1])))
    for live, stored in zip(results, segmenter.stream(clip, flows), strict=True):
        np.testing.assert_array_equal(live.prob, stored.prob)
    with pytest.raises(ValueError, match=r"frame 3 has shape \(20, 20, 3\).* call reset"):
        segmenter.step(np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="frame 3: expected a picture of type"):
        segmenter.step(np.zeros((48, 70, 3)))
    segmenter.reset()
    again = segmenter.step(clip[0])
    assert again.index == 0
    np.testing.assert_array_equal(again.prob, results[0].prob)


def test_sessions_and_streams_of_one_segmenter_do_not_meet(checkpoint):
    """In turns, and in several threads at once."""
    segmenter = VideoSegmenter(checkpoint)
    clip, other = list(frames(4)), [255 - frame for frame in frames(4)]

    def live(video):
        session = segmenter.session()
        return [session.step(frame).prob for frame in video]

    def stream(video):
        return [result.prob for result in segmenter.stream(video)]

    jobs = [(live, clip), (live, other), (stream, clip), (stream, other)]
    expected = [run(video) for run, video in jobs]
    assert not np.array_equal(expected[0], expected[2])  # flow leads the other way
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: job[0](job[1]), jobs))
    np.testing.assert_array_equal(found, expected)
    sessions = [segmenter.session(), segmenter.session()]
    mixed = [[session.step(frame).prob for session, frame in zip(sessions, pair, strict=True)]
             for pair in zip(clip, other, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(np.swapaxes(mixed, 0, 1), expected[:2])


def test_the_network_leaves_a_core_to_flow(checkpoint, monkeypatch):
    """Not where the caller or OMP_NUM_THREADS has said how many threads there are, nor in live steps."""
    monkeypatch.setattr("hmhi.inference.threads.available_processors", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    segmenter, seen = VideoSegmenter(checkpoint), []
    segmenter.model.decoder.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))

    def threads_of(run, before: int) -> set[int]:
        seen.clear()
        torch.set_num_threads(before)
        run()
        assert torch.get_num_threads() == before
        return set(seen)

    def stream() -> None:
        for _ in segmenter.stream(frames(2)):
            assert torch.get_num_threads() == default, "what the caller does between frames has them all"

    default = torch.get_num_threads()
    try:
        for default, expected in ((3, 2), (2, 2), (1, 1)):
            assert threads_of(stream, default) == {expected}
        default = 3
        assert threads_of(lambda: list(segmenter.segment_many([frames(2)])), 3) == {2}
        assert threads_of(lambda: segmenter.step(next(frames(1))), 3) == {3}
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert threads_of(stream, 3) == {3}
    finally:
        torch.set_num_threads(1)


def test_an_estimator_of_the_users_is_called_by_one_thread_at_a_time(checkpoint):
    busy = Lock()

    def alone(a, b):
        assert busy.acquire(blocking=False)
        time.sleep(0.005)
        busy.release()
        return right_by_the_next_frame(a, b)

    segmenter = VideoSegmenter(checkpoint, flow=alone)
    assert len(list(segmenter.segment_many([grey(10, 70, 20)] * 4))) == 12


@pytest.mark.parametrize("overrides", [(), BOTH])
def test_drawing_into_a_result_changes_nothing_else(checkpoint, overrides):
    segmenter = VideoSegmenter(checkpoint, overrides=overrides)
    clip, flows = list(frames(5)), [np.full((48, 70, 3), 50 * t, np.uint8) for t in range(5)]
    untouched = np.stack(clip)

    def spoil(results):
        probs = []
        for result in results:
            probs.append(result.prob.copy())
            for array in (result.frame, result.flow, result.labels, result.prob):
                array[...] = 0
        return probs

    def sessions(video):
        session = segmenter.session()
        return (session.step(frame) for frame in video)

    for run in (segmenter.stream, partial(segmenter.stream, flows=flows), sessions):
        plain = [result.prob for result in run(clip)]
        np.testing.assert_array_equal(spoil(run(clip)), plain)
        np.testing.assert_array_equal(clip, untouched)
    assert [flow[0, 0, 0] for flow in flows] == [0, 50, 100, 150, 200]


def test_no_more_videos_are_open_than_asked(checkpoint):
    opened, most = set(), 0

    def source(number):
        nonlocal most
        opened.add(number)
        most = max(most, len(opened))
        yield from frames(12 + number % 3)
        opened.discard(number)

    segmenter = VideoSegmenter(checkpoint)
    results = list(segmenter.segment_many([source(number) for number in range(7)], at_once=2))
    assert most == 2
    lengths = [12 + number % 3 for number in range(7)]
    for number, length in enumerate(lengths):
        assert [result.index for which, result in results if which == number] == list(range(length))
    with pytest.raises(UserError, match="at_once must be 1 or more"):
        segmenter.segment_many([], at_once=0)


def test_threads_end_with_the_stream(checkpoint):
    def ours():
        return [thread.name for thread in threading.enumerate() if "clip" in thread.name]

    segmenter = VideoSegmenter(checkpoint)
    clip = replace(open_source(list(frames(30))), name="clip")
    stream = segmenter.stream(clip)
    assert next(stream).index == 0
    assert ours() == ["flow clip", "decode clip"] or ours() == ["decode clip", "flow clip"]
    stream.close()
    assert ours() == []
    list(segmenter.stream(replace(clip, end=Position(3))))
    assert ours() == []
    many = segmenter.segment_many([clip, clip])
    next(many)
    assert len(ours()) == 4
    many.close()
    assert ours() == []
    del stream, many
    broken = replace(open_source([*frames(3), np.zeros((3, 3, 9), np.uint8)]), name="clip")
    with pytest.raises(ValueError, match="frame 3: expected a picture"):
        list(segmenter.stream(broken))
    assert ours() == []


def test_an_error_comes_after_the_frames_before_it(checkpoint):
    def failing(frame_a, frame_b):
        if frame_a[0, 0, 0] == 20:
            raise RuntimeError("out of memory")
        return right_by_the_next_frame(frame_a, frame_b)

    stream = VideoSegmenter(checkpoint, flow=failing).stream(grey(0, 10, 20, 30))
    assert [next(stream).index, next(stream).index] == [0, 1]
    with pytest.raises(ValueError, match="flow of frame 2 cannot be computed: out of memory"):
        next(stream)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType"),
        (np.zeros((40, 40)), r"an array of shape \(40, 40\), not flow"),
        (np.full((40, 40, 2), np.nan), "NaN or infinite"),
    ],
    ids=["nothing", "one channel", "not a number"],
)
def test_an_estimator_that_returns_no_flow(checkpoint, returned, message):
    class Batches:
        def __call__(self, a, b):
            return returned

        def batch(self, a, b):
            return None if returned is None else np.stack([returned] * len(a))

    for flow, look_ahead in ((lambda a, b: returned, 1), (Batches(), 2)):
        segmenter = VideoSegmenter(checkpoint, flow=flow, look_ahead=look_ahead)
        with pytest.raises(UserError, match=f"flow of frame 0.* cannot be computed: .*{message}"):
            list(segmenter.stream(grey(10, 70, 20)))


def test_stored_flow_of_another_shape_is_refused(checkpoint, tmp_path):
    """Training refuses a rotated map, too; its size may be any."""
    segmenter, path = VideoSegmenter(checkpoint), tmp_path / "1.png"
    flows = [np.full((24, 35, 3), 255, np.uint8), np.full((70, 48, 3), 255, np.uint8)]
    Image.fromarray(flows[1]).save(path)
    for second, name in ((flows[1], "frame 1"), (path, r".*1\.png")):
        stream = segmenter.stream(frames(2), [flows[0], second])
        assert next(stream).index == 0
        with pytest.raises(
            UserError, match=f"{name}: flow is 48x70, which is not the shape of its 70x48 image"
        ):
            next(stream)


@pytest.mark.parametrize("given", [True, False], ids=["stored flow", "computed flow"])
def test_a_size_change_names_the_frame(checkpoint, given):
    clip = [*frames(2), next(frames(1, (40, 40)))]
    with pytest.raises(ValueError, match="frame 2 is 40 x 40, but the video began with 70 x 48"):
        list(VideoSegmenter(checkpoint).stream(clip, clip if given else None))


def test_dis_of_large_frames_stays_at_the_size_it_works_on(checkpoint, shared_data):
    """The picture of motion that the network reads is that of full-size maps but for rounding."""
    folder = shared_data / "davis16" / "JPEGImages" / "480p" / "dog"
    clip = [read_rgb(folder / f"{t:05d}.jpg") for t in range(3)]
    segmenter = VideoSegmenter(checkpoint)
    result = next(segmenter.stream(clip))
    assert result.flow.shape[0] < 480 and result.mask.shape == (480, 854)
    small, full = (
        resize_rgb(picture, (64, 64)).astype(np.float32)
        for picture in (result.flow, flow_to_rgb(segmenter.estimator(clip[0], clip[1])))
    )
    assert np.abs(small - full).mean() < 3
    assert np.abs(small - 255).mean() > 10


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 97), (200, 31), (2160, 3840)])
def test_any_size(checkpoint, size):
    clip = [np.random.default_rng(t).integers(0, 255, (*size, 3), dtype=np.uint8) for t in range(2)]
    for short_side in (None, 32):
        results = list(VideoSegmenter(checkpoint, short_side=short_side).stream(clip))
        assert [result.mask.shape for result in results] == [size, size]


def test_size_of_the_network_input(checkpoint):
    assert VideoSegmenter(checkpoint).input_size(480, 854) == (64, 64)
    assert VideoSegmenter(checkpoint, image_size=96).input_size(480, 854) == (96, 96)
    assert VideoSegmenter(checkpoint, image_size=(64, 128)).input_size(480, 854) == (64, 128)
    aspect = VideoSegmenter(checkpoint, short_side=480)
    assert aspect.input_size(480, 854) == (480, 864)
    assert aspect.input_size(1920, 1080) == (864, 480)
    assert VideoSegmenter(checkpoint, short_side=1).input_size(480, 854) == (32, 32)


def test_settings_that_make_no_sense(checkpoint):
    for settings, message in [
        ({"image_size": 64, "short_side": 64}, "not both"),
        ({"short_side": 0}, "short_side must be 1 or more"),
        ({"short_side": 64.5}, "short_side must be 1 or more, a whole number"),
        ({"look_ahead": 1.5}, "look_ahead must be 1 or more, a whole number"),
        ({"image_size": (64,)}, "infer.image_size"),
        ({"look_ahead": 0}, "look_ahead must be 1 or more"),
        ({"flow": "flownet"}, "infer.flow"),
        ({"image_size": 0}, "infer.image_size"),
        ({"memory_frames": 0}, "model.memory_frames"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:-1"}, "unknown device 'cuda:-1'"),
        ({"device": "cuda:99"}, "cuda:99 is not there"),
        ({"device": "cuda:1000"}, "cuda:1000 is not there"),
        ({"device": "meta"}, "meta is not there"),
        ({"device": "xpu"}, "xpu is not there"),
    ]:
        with pytest.raises(ValueError, match=message):
            VideoSegmenter(checkpoint, **settings)
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_amp_is_what_the_device_has(checkpoint):
    device = find_device("auto")
    segmenter = VideoSegmenter(checkpoint, device, amp=True)
    assert segmenter.config.precision == amp_precision(device)
    plain = VideoSegmenter(checkpoint, device)
    assert plain.config.precision == "fp32"
    for one, other in zip(segmenter.stream(frames(2)), plain.stream(frames(2)), strict=True):
        assert np.abs(one.prob - other.prob).mean() < 0.05


def test_a_failed_compilation_is_said_once_and_does_no_harm(checkpoint, monkeypatch, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler\nand so on")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    compiled = [result.prob for result in VideoSegmenter(checkpoint, compile=True).stream(frames(3))]
    plain = [result.prob for result in VideoSegmenter(checkpoint).stream(frames(3))]
    np.testing.assert_array_equal(compiled, plain)
    (message,) = caplog.messages
    assert message.startswith("torch.compile failed, going on without it (BackendCompilerFailed: ")
    assert "no C++ compiler" in message and "\n" not in message


def test_other_errors_do_not_turn_compilation_off(checkpoint, monkeypatch, caplog):
    """Once, any exception at all was taken for a failed compilation, and the network ran uncompiled ever after."""
    calls, full = [], []

    def counted(graph, inputs):
        def run(*args):
            if full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            calls.append(1)
            return graph.forward(*args)

        return run

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    segmenter = VideoSegmenter(checkpoint, compile=True)
    clip = list(frames(4))
    segmenter.step(clip[0])
    full.append(True)
    with pytest.raises(torch.OutOfMemoryError):
        segmenter.step(clip[1])
    with pytest.raises(torch.OutOfMemoryError):
        VideoSegmenter(checkpoint, compile=True)
    full.clear()
    calls.clear()
    with pytest.raises(ValueError, match="picture"):
        segmenter.step(np.zeros(5))
    assert segmenter.step(clip[1]).index == 1
    assert calls and not caplog.messages


def test_results_say_when_and_how_long(checkpoint):
    results = list(VideoSegmenter(checkpoint).stream(open_source(list(frames(3)), fps=4.0)))
    assert [result.time for result in results] == [0.0, 0.25, 0.5]
    for result in results:
        assert sorted(result.seconds) == ["decode", "flow", "network"]
        assert all(value >= 0 for value in result.seconds.values())


def test_other_flow_than_in_training_is_one_warning(tmp_path, caplog):
    from hmhi.flow.make import FlowSettings, write_manifest
    from hmhi.flow.provenance import computed_record

    content = torch.load(save_small_checkpoint(tmp_path / "best.pt"), weights_only=True)
    torch.save({**content, "flow": {"ytvos": computed_record("raft")}}, tmp_path / "raft.pt")
    (tmp_path / "bare").mkdir()
    write_manifest(
        tmp_path / "backward", FlowSettings("raft", None, None, "backward", "repeat", "none", "png")
    )
    write_manifest(tmp_path / "same", FlowSettings("raft", None, None, "forward", "none", "none", "jpg"))
    segmenter = VideoSegmenter(tmp_path / "raft.pt")
    segmenter.warn_of_other_flow(tmp_path / "bare")
    segmenter.warn_of_other_flow(tmp_path / "same")
    VideoSegmenter(tmp_path / "best.pt").warn_of_other_flow()
    assert caplog.messages == []
    segmenter.warn_of_other_flow()
    segmenter.warn_of_other_flow(tmp_path / "backward")
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "dis, forward instead of raft, forward (ytvos)",
        "raft, backward instead of raft, forward (ytvos)",
    ]


def test_overrides_reach_model_and_inference(checkpoint):
    segmenter = VideoSegmenter(checkpoint, overrides=["infer.threshold=0.9", "model.memory_frames=1"])
    assert segmenter.model.policy.frames == 1
    result = next(segmenter.stream(frames(1)))
    assert np.array_equal(result.mask, result.prob > 0.9)


def test_real_video_with_stored_flow(checkpoint, shared_data):
    folder = shared_data / "davis16"
    images = sorted((folder / "JPEGImages" / "480p" / "dog").iterdir())[:3]
    flows = [folder / "Flow" / "dog" / f"{path.stem}.jpg" for path in images]
    results = list(VideoSegmenter(checkpoint).stream(map(read_rgb, images), map(read_flow_rgb, flows)))
    assert len(results) == 3
    assert results[0].mask.shape == (480, 854)


@pytest.mark.parametrize("compensation", ["none", "homography"])
def test_inference_reads_what_validation_reads(tmp_path, compensation):
    """The same pictures reach the network through `VideoSegmenter` and through the data sets of training."""
    from hmhi.config import load_config
    from hmhi.data.loader import build_val_videos
    from hmhi.inference.inputs import find_videos
    from hmhi.synthetic import write_dataset

    folder = write_dataset(tmp_path, "Sample", "val", 1, 3, (64, 96), seed=5)
    overrides = [f"data.compensation={compensation}"]
    segmenter = VideoSegmenter(save_small_checkpoint(tmp_path / "best.pt", overrides))
    config = load_config(None, [f"data.root={tmp_path}", "data.image_size=[64,64]", *overrides])
    (validation,) = build_val_videos(config.data, "sample")
    (source,) = find_videos(folder / "Images" / "val", folder / "Flows" / "val")

    seen = []
    encode = segmenter.model.encode

    def watched(image, flow):
        seen.append((image, flow))
        return encode(image, flow)

    segmenter.model.encode = watched
    list(segmenter.stream(source.frames, source.flows))
    from hmhi.data.transforms import normalize

    for (image, flow), sample in zip(seen, validation, strict=True):
        assert torch.equal(image[0], normalize(sample.image))
        assert torch.equal(flow[0], normalize(sample.flow))
