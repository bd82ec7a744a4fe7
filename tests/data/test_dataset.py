import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from trees import half_mask, picture, save, write_video

from hmhi.config import AugmentConfig, DataConfig, SyntheticConfig
from hmhi.data import dataset
from hmhi.data.dataset import ClipDataset, ClipKey, SyntheticClips, SyntheticVideo, VideoDataset
from hmhi.data.index import scan
from hmhi.data.transforms import to_input
from hmhi.errors import BadFileError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.compensate import compensate_picture
from hmhi.flow.directions import flow_picture
from hmhi.flow.estimate import build_estimator
from hmhi.media.pictures import read_rgb

PLAIN = AugmentConfig(flip=0.0, photometric=False)


def config(root, **values):
    settings = {"image_size": [32, 48], "clip_frames": 3, "workers": 0, "train": ["davis16"], **values}
    return DataConfig(root=str(root), **settings)


def load(root, dataset="davis16", split="train", need_flow=True, **values):
    videos = scan(root, dataset, split, need_flow=need_flow, need_mask=True)
    return videos, ClipDataset(videos, config(root, **values), seed=1)


def same(a, b):
    return (
        all(torch.equal(a[key], b[key]) for key in ("image", "flow", "mask")) and a["frames"] == b["frames"]
    )


def test_item_format(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 6)
    write_video(tmp_path / "DAVIS-16", "cow", 6)
    _, clips = load(tmp_path, repeats=3)
    assert len(clips) == 6
    item = clips[ClipKey(0, 3)]
    assert item["image"].shape == item["flow"].shape == (3, 3, 32, 48)
    assert item["mask"].shape == (3, 1, 32, 48)
    assert {item[key].dtype for key in ("image", "flow", "mask")} == {torch.uint8}
    assert set(item["mask"].unique().tolist()) == {0, 1}
    assert item["name"] == "davis16/cow" and item["frames"] == sorted(item["frames"])


def test_content_is_that_of_the_named_frames(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 6)
    videos, clips = load(tmp_path, augment=PLAIN)
    item = clips[ClipKey(0, 0)]
    for t, stem in enumerate(item["frames"]):
        frame = videos[0].frames[int(stem)]
        expected = to_input(np.array(Image.open(frame.image)), (32, 48))
        assert torch.equal(item["image"][t], expected)
        assert torch.equal(item["flow"][t], to_input(np.array(Image.open(frame.flow)), (32, 48)))


def test_draws_follow_from_seed_epoch_and_index_alone(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 30)
    _, clips = load(tmp_path)
    first = clips[ClipKey(4, 0)]
    clips[ClipKey(5, 0)]
    np.random.seed(0)
    torch.manual_seed(0)
    assert same(first, clips[ClipKey(4, 0)])
    assert not same(first, clips[ClipKey(5, 0)])
    assert not same(first, ClipDataset(clips.videos, clips.config, seed=2)[ClipKey(4, 0)])


def test_a_flipped_clip_is_flipped_in_every_frame(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3)  # as many frames as the clip: all are picked
    _, clips = load(tmp_path, augment=AugmentConfig(photometric=False))
    _, plain = load(tmp_path, augment=PLAIN)
    flips = []
    for epoch in range(20):
        item, reference = clips[ClipKey(epoch, 0)], plain[ClipKey(epoch, 0)]
        flipped = torch.equal(item["image"], reference["image"].flip(-1))
        assert flipped or torch.equal(item["image"], reference["image"])
        assert torch.equal(item["mask"], reference["mask"].flip(-1) if flipped else reference["mask"])
        flips.append(flipped)
    assert 4 < sum(flips) < 16


def test_image_or_flow_is_hidden_in_a_share_of_the_clips(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3)
    _, plain = load(tmp_path, augment=PLAIN)
    _, clips = load(tmp_path, augment=PLAIN, drop_modality=0.5)
    mean = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    hidden = []
    for epoch in range(40):
        item, whole = clips[ClipKey(epoch, 0)], plain[ClipKey(epoch, 0)]
        assert torch.equal(item["mask"], whole["mask"])
        image, flow = (torch.equal(item[key], whole[key]) for key in ("image", "flow"))
        assert image or (item["image"] == mean).all()
        assert flow or (item["flow"] == 255).all()
        hidden.append((image, flow))
    assert hidden.count((False, False)) == 0
    assert hidden.count((False, True)) > 4 and hidden.count((True, False)) > 4
    assert hidden.count((True, True)) > 10


def test_frames_without_a_mask_are_never_drawn(tmp_path):
    write_video(tmp_path / "FBMS", "cats01", 20, masks=[0, 7, 9, 19])
    _, clips = load(tmp_path, dataset="fbms")
    drawn = {stem for epoch in range(30) for stem in clips[ClipKey(epoch, 0)]["frames"]}
    assert drawn == {"00000", "00007", "00009", "00019"}


def test_streaming_gives_every_frame_and_its_truth_at_source_size(tmp_path):
    write_video(tmp_path / "FBMS", "cats01", 5, split="val", size=(41, 63), masks=[0, 4])
    (video,) = scan(tmp_path, "fbms", "val", need_flow=True, need_mask=True)
    stream = VideoDataset(video, config(tmp_path, image_size=[32, 48]))
    samples = list(stream)
    assert len(stream) == 5 and stream.name == "cats01"
    assert [s.stem for s in samples] == [f"{t:05d}" for t in range(5)]
    assert [s.mask is not None for s in samples] == [True, False, False, False, True]
    np.testing.assert_array_equal(samples[0].mask, half_mask((41, 63), 1))
    assert samples[0].size == (41, 63) and samples[0].image.shape == samples[0].flow.shape == (3, 32, 48)
    assert torch.equal(samples[3].flow, samples[4].flow)  # the last map is repeated


@pytest.mark.parametrize(("source", "most"), [("stored", 1), ("dis", 2)])
def test_streaming_reads_no_further_than_it_must(tmp_path, monkeypatch, source, most):
    write_video(tmp_path / "DAVIS-16", "bear", 6, size=(64, 96))
    (video,) = scan(tmp_path, "davis16", "train", need_flow=True, need_mask=True)
    read = []
    monkeypatch.setattr(dataset, "read_rgb", lambda path: read.append(path.stem) or read_rgb(path))
    stream = iter(VideoDataset(video, config(tmp_path, image_size=[64, 96], flow=source)))
    for t in range(4):
        next(stream)
        assert len(set(read)) == t + most


def test_a_video_without_flow_maps_is_not_taken_for_a_still(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3, flows=[])
    (video,) = scan(tmp_path, "davis16", "train", need_flow=False, need_mask=True)
    with pytest.raises(
        BadFileError, match=r"bear: .*00000\.jpg: no flow map; make one, or set data\.flow=dis"
    ):
        list(VideoDataset(video, config(tmp_path, image_size=[32, 48], flow="stored")))


def test_dis_flow_needs_no_files_and_repeats_the_last_map(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3, flows=[], size=(64, 96))
    (video,) = scan(tmp_path, "davis16", "train", need_flow=False, need_mask=True)
    samples = list(VideoDataset(video, config(tmp_path, image_size=[64, 96], flow="dis")))
    images = [np.array(Image.open(frame.image)) for frame in video.frames]
    expected = flow_to_rgb(build_estimator("dis")(images[1], images[2]))
    np.testing.assert_array_equal(samples[1].flow.permute(1, 2, 0).numpy(), expected)
    assert torch.equal(samples[2].flow, samples[1].flow) and not torch.equal(samples[0].flow, samples[1].flow)
    clips = ClipDataset([video], config(tmp_path, flow="dis", augment=PLAIN, image_size=[64, 96]), seed=0)
    assert torch.equal(clips[ClipKey(0, 0)]["flow"][1], samples[1].flow)


def test_dis_flow_of_both_directions_is_joined(tmp_path):
    write_video(tmp_path / "DAVIS-16", "bear", 3, flows=[], size=(64, 96))
    (video,) = scan(tmp_path, "davis16", "train", need_flow=False, need_mask=True)
    settings = {"image_size": [64, 96], "flow": "dis", "compensation": "affine", "flow_direction": "both"}
    samples = list(VideoDataset(video, config(tmp_path, **settings)))
    images = [np.array(Image.open(frame.image)) for frame in video.frames]
    dis = build_estimator("dis")
    for t, sample in enumerate(samples):
        forward = dis(images[t], images[t + 1]) if t < 2 else None
        backward = dis(images[t], images[t - 1]) if t else None
        expected = compensate_picture(flow_picture(forward, backward, "affine"), "affine")
        np.testing.assert_array_equal(sample.flow.permute(1, 2, 0).numpy(), expected)
    clips = ClipDataset([video], config(tmp_path, **settings, augment=PLAIN), seed=0)
    assert torch.equal(clips[ClipKey(0, 0)]["flow"][1], samples[1].flow)


def test_one_frame_has_white_flow(tmp_path):
    save(tmp_path / "DUTS/Images/train/img.jpg", picture(0))
    save(tmp_path / "DUTS/Annotations/train/img.png", half_mask())
    for source in ("stored", "dis"):
        _, clips = load(tmp_path, dataset="duts", flow=source)
        item = clips[ClipKey(0, 0)]
        assert (item["flow"] == 255).all() and item["frames"] == ["img"] * 3


@pytest.mark.parametrize("kind", ["Images", "Annotations", "Flows"])
def test_a_damaged_file_is_named_with_its_video(tmp_path, kind):
    write_video(tmp_path / "DAVIS-16", "bear", 3)
    videos, clips = load(tmp_path)
    path = next(p for p in (tmp_path / "DAVIS-16" / kind / "train" / "bear").iterdir() if p.stem == "00001")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadFileError, match=f"davis16/bear: .*{path.name}"):
        clips[ClipKey(0, 0)]
    with pytest.raises(BadFileError, match=f"davis16/bear: .*{path.name}"):
        list(VideoDataset(videos[0], config(tmp_path, image_size=[32, 48])))
    path.unlink()
    with pytest.raises(BadFileError, match=f"davis16/bear: .*{path.name}"):
        clips[ClipKey(0, 0)]


def test_mask_of_another_size_and_turned_flow_are_errors(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 3)
    _, clips = load(tmp_path)
    save(base / "Annotations/train/bear/00001.png", half_mask((20, 32)))
    with pytest.raises(BadFileError, match="mask is 32x20 but its image is 64x40"):
        clips[ClipKey(0, 0)]
    save(base / "Annotations/train/bear/00001.png", half_mask())
    save(base / "Flows/train/bear/00001.png", picture(0, (20, 32)))  # half the size is fine
    clips[ClipKey(0, 0)]
    save(base / "Flows/train/bear/00001.png", picture(0, (64, 40)))
    with pytest.raises(BadFileError, match="flow is 40x64, which is not the shape of its 64x40 image"):
        clips[ClipKey(0, 0)]


def test_videos_without_masks_cannot_be_trained_on(tmp_path):
    write_video(tmp_path / "FBMS", "cats01", 3, masks=[])
    videos = scan(tmp_path, "fbms", "train", need_flow=True, need_mask=False)
    with pytest.raises(ValueError, match="fbms/cats01"):
        ClipDataset(videos, config(tmp_path), seed=0)


def test_synthetic_items_have_the_same_format():
    cfg = config("unused", synthetic=SyntheticConfig(videos=4, size=[40, 48]))
    clips = SyntheticClips(cfg, seed=0)
    item = clips[ClipKey(0, 1)]
    assert len(clips) == 4
    assert item["image"].shape == item["flow"].shape == (3, 3, 32, 48) and item["mask"].shape == (
        3,
        1,
        32,
        48,
    )
    assert item["image"].dtype == torch.uint8 and set(item["mask"].unique().tolist()) <= {0, 1}
    assert same(item, clips[ClipKey(0, 1)]) and not same(item, clips[ClipKey(1, 1)])
    assert item["name"].startswith("synthetic/") and int(item["name"].split("/")[1]) % 2 == 0


def test_synthetic_video_streams():
    cfg = config("unused", synthetic=SyntheticConfig(val_frames=4, size=[40, 48]))
    video = SyntheticVideo(2, cfg)
    samples = list(video)
    assert len(video) == len(samples) == 4 and samples[0].size == samples[0].mask.shape == (40, 48)
    assert samples[0].image.shape == (3, 32, 48) and samples[3].stem == "00003"


def test_real_sequences(shared_data):
    videos = scan(shared_data, "davis16", "val", need_flow=True, need_mask=True)
    clips = ClipDataset(videos, config(shared_data, clip_frames=5, image_size=[64, 64]), seed=0)
    item = clips[ClipKey(0, 0)]
    assert item["name"] == "davis16/blackswan" and 0.02 < item["mask"].float().mean() < 0.5
    stream = VideoDataset(videos[0], config(shared_data, image_size=[64, 64]))
    sample = next(iter(stream))
    assert sample.size == (480, 854) and sample.mask.shape == (480, 854)


def test_images_from_a_video_file(tmp_path):
    base = tmp_path / "DAVIS-16"
    write_video(base, "bear", 4)
    video_file = base / "Images/train/bear.avi"
    writer = cv2.VideoWriter(str(video_file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 40))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for t in range(4):
        writer.write(np.full((40, 64, 3), 60 * t, np.uint8))
    writer.release()
    shutil.rmtree(base / "Images/train/bear")
    videos, clips = load(tmp_path, augment=PLAIN)
    for t, sample in enumerate(VideoDataset(videos[0], config(tmp_path, image_size=[40, 64]))):
        assert abs(sample.image.float().mean() - 60 * t) < 5 and sample.mask is not None
    item = clips[ClipKey(0, 0)]
    for frame, stem in zip(item["image"], item["frames"], strict=True):
        assert abs(frame.float().mean() - 60 * int(stem)) < 5
