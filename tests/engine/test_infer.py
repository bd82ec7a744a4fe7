import itertools
import os
from pathlib import Path

import make_inputs
import numpy as np
import pytest
import torch
from small_model import save_small_checkpoint

from hmhi.data.media import read_flow_rgb, read_rgb
from hmhi.engine.infer import VideoSegmenter, default_checkpoint, to_probability, with_flow
from hmhi.engine.video_io import to_levels
from hmhi.flow.codec import flow_to_rgb


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
        torch.stack([normalize(to_input(x, segmenter.image_size)) for x in xs])[None] for xs in (clip, flows)
    )
    with torch.inference_mode():
        expected = to_probability(segmenter.model(images, motions)[0], (48, 70))
    for result, prob in zip(segmenter.stream(clip), expected, strict=True):
        np.testing.assert_allclose(result.prob, prob[0].numpy(), atol=1e-5)


def test_frames_are_read_as_late_as_possible(checkpoint):
    taken = 0

    def source():
        nonlocal taken
        for frame in frames(20):
            taken += 1
            yield frame

    stream = VideoSegmenter(checkpoint).stream(source())
    for expected in (2, 3, 4):
        next(stream)
        assert taken == expected


def test_memory_does_not_grow_with_length(checkpoint):
    """After the bank is full, no step holds more tensors than the one before."""
    segmenter = VideoSegmenter(checkpoint, overrides=["model.memory_frames=2"])
    banks = []
    step = segmenter.model.step

    def watched(*args, **kwargs):
        logits, memory = step(*args, **kwargs)
        banks.append(sum(len(bank) for bank in memory.banks.values()))
        return logits, memory

    segmenter.model.step = watched
    for _ in segmenter.stream(frames(6)):
        pass
    assert banks == [2, 4, 4, 4, 4, 4]


def test_stored_flow_is_used(checkpoint):
    segmenter = VideoSegmenter(checkpoint)
    white = [np.full((48, 70, 3), 255, dtype=np.uint8)] * 3
    stored = [result.prob for result in segmenter.stream(frames(3), white)]
    computed = [result.prob for result in segmenter.stream(frames(3))]
    assert not np.allclose(stored, computed, atol=1e-4)


def test_flow_of_the_last_frame_repeats_and_a_single_frame_is_still():
    def estimator(a, b):
        return np.full((*a.shape[:2], 2), float(b[0, 0, 0]), dtype=np.float32) * [1, 0]

    three = [np.full((4, 4, 3), value, dtype=np.uint8) for value in (0, 1, 2)]
    flows = [flow for _, flow in with_flow(three, estimator)]
    assert len(flows) == 3
    assert np.array_equal(flows[1], flows[2])
    ((_, flow),) = with_flow(three[:1], estimator)
    assert (flow == 255).all()
    assert list(with_flow([], estimator)) == []


@pytest.mark.parametrize("given", [True, False], ids=["stored flow", "computed flow"])
def test_a_size_change_names_the_frame(checkpoint, given):
    clip = [*frames(2), next(frames(1, (40, 40)))]
    with pytest.raises(ValueError, match="frame 2 has shape"):
        list(VideoSegmenter(checkpoint).stream(clip, clip if given else None))


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


def test_stretch_equals_the_release():
    """Its writer on the stored cases: bilinear, sigmoid, min-max of each frame, rounded down to 8 bits."""
    with np.load(Path(make_inputs.__file__).parent / "postproc.npz") as stored:
        expected = {name: stored[name] for name in stored.files}
    compared = 0
    for name, logits, size in make_inputs.postproc_cases():
        ours = to_levels(to_probability(torch.from_numpy(logits), size, stretch=True)[0, 0].numpy())
        key = next(key for key in expected if name in key)
        assert np.abs(ours.astype(int) - expected[key].astype(int)).max() <= 1
        assert (ours != expected[key]).mean() < 1e-3
        compared += 1
    assert compared == 4


def test_without_stretch_a_frame_may_have_no_object():
    weak = torch.full((1, 1, 8, 8), -5.0)
    weak[..., 4, 4] = -3.5
    assert to_probability(weak, (8, 8)).max() < 0.05
    assert to_probability(weak, (8, 8), stretch=True).max() == pytest.approx(1.0)


def test_newest_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"quickstart\.sh"):
        default_checkpoint(tmp_path)
    for age, run in ((200, "old"), (100, "new")):
        path = tmp_path / run / "ckpt" / "best.pt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert default_checkpoint(tmp_path).parts[-3] == "new"


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
    from hmhi.data.synthetic import write_dataset
    from hmhi.engine.video_io import find_videos

    folder = write_dataset(tmp_path, "Sample", "val", 1, 3, (64, 96), seed=5)
    overrides = [f"data.compensation={compensation}"]
    segmenter = VideoSegmenter(save_small_checkpoint(tmp_path / "best.pt", overrides))
    config = load_config(None, [f"data.root={tmp_path}", "data.image_size=[64,64]", *overrides])
    (validation,) = build_val_videos(config.data, "sample")
    (source,) = find_videos(folder / "Images" / "val", folder / "Flows" / "val")

    seen = []
    step = segmenter.model.step

    def watched(image, flow, memory):
        seen.append((image, flow))
        return step(image, flow, memory)

    segmenter.model.step = watched
    list(segmenter.stream(source.read_frames(), source.read_flows()))
    from hmhi.data.transforms import normalize

    for (image, flow), sample in zip(seen, validation, strict=True):
        assert torch.equal(image[0], normalize(sample.image))
        assert torch.equal(flow[0], normalize(sample.flow))
