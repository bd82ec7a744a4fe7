from dataclasses import replace

import numpy as np
import pytest
from trees import half_mask, picture, save

from hmhi.config import AugmentConfig, Config, ConfigError, DataConfig, ModelConfig, SyntheticConfig
from hmhi.data.dataset import ClipKey
from hmhi.data.index import scan
from hmhi.data.loader import build_train_loader
from hmhi.data.objects import ObjectClipDataset, ObjectVideo, build_object_videos
from hmhi.data.transforms import draw_object_augmentations
from hmhi.errors import BadFileError
from hmhi.media.masks import VOID, write_labels

SIZE = (60, 80)
COLOURS = np.array([[20, 20, 20], [230, 30, 30], [30, 230, 30], [30, 30, 230], [230, 230, 30]], np.uint8)
BENDS = {"rotation": 15.0, "shear": 10.0, "zoom": 0.1, "shift": 4.0}


def plain(**changes) -> DataConfig:
    augment = AugmentConfig(**{"flip": 0.0, "photometric": False, **changes.pop("augment", {})})
    values = {"clip_frames": 3, "image_size": [64, 64], "objects": 2, "sampler": "gaps", "augment": augment}
    return DataConfig(**{**values, **changes})


def label_map(t, ids=(3, 7, 9)):
    """Three squares that move to the right."""
    labels = np.zeros(SIZE, np.uint8)
    for row, label in enumerate(ids):
        labels[4 + 18 * row : 16 + 18 * row, 10 + t : 30 + t] = label
    return labels


@pytest.fixture
def root(tmp_path):
    for name in ("bear", "cow"):
        for t in range(12):
            save(tmp_path / f"DAVIS-16/Images/train/{name}/{t:05d}.jpg", picture(t, SIZE))
            write_labels(tmp_path / f"DAVIS-16/Annotations/train/{name}/{t:05d}.png", label_map(t))
    return tmp_path


def clips(root, config) -> ObjectClipDataset:
    return ObjectClipDataset(scan(root, "davis16", "train", need_flow=False, need_mask=True), config, 5)


def test_a_clip(root):
    data = clips(root, plain())
    item = data[ClipKey(0, 1)]
    assert item["image"].shape == (3, 3, 64, 64) and item["labels"].shape == (3, 64, 64)
    assert item["name"] == "davis16/cow" and item["frames"] == sorted(item["frames"])
    assert item["objects"] == 2 and len(item["ids"]) == 2 and set(item["ids"]) <= {3, 7, 9}
    assert item["valid"].tolist() == [True, True]
    assert set(item["labels"].unique().tolist()) == {0, 1, 2}
    again = data[ClipKey(0, 1)]
    assert (again["image"] == item["image"]).all() and (again["labels"] == item["labels"]).all()
    assert {tuple(data[ClipKey(epoch, 1)]["ids"]) for epoch in range(12)} == {(3, 7), (3, 9), (7, 9)}


def test_fewer_objects_than_there_is_room_for(root):
    item = clips(root, plain(objects=5))[ClipKey(0, 0)]
    assert item["objects"] == 3 and item["ids"] == [3, 7, 9]
    assert item["valid"].tolist() == [True] * 3 + [False] * 2
    assert set(item["labels"].unique().tolist()) == {0, 1, 2, 3}


def test_labels_follow_their_pixels():
    """Every crop and bend moves image and labels alike, and invents no label."""
    rng = np.random.default_rng(0)
    labels = label_map(5, (1, 2, 4))
    image = COLOURS[labels]
    for crop in ("none", "short_side", "area"):
        config = AugmentConfig(photometric=False, crop=crop, **BENDS)
        for _ in range(8):
            draws = draw_object_augmentations(config, SIZE, (48, 56), 2, rng)
            for draw in draws:
                bent, moved = draw.labels(labels), draw.image(image)
                assert bent.shape == (48, 56) and moved.shape == (48, 56, 3)
                assert set(np.unique(bent)) <= {0, 1, 2, 4}
                nearest = np.abs(moved[:, :, None].astype(int) - COLOURS).sum(axis=3).argmin(axis=2)
                outside = (
                    np.abs(moved.astype(int) - (124, 116, 104)).sum(axis=2) < 60
                )  # filled beyond the frame
                assert (nearest == bent)[~outside].mean() > 0.9, crop
            assert draws[0].window == draws[1].window and draws[0].affine != draws[1].affine


def test_colours_change_for_a_clip_and_never_the_labels(root):
    before = clips(root, plain())[ClipKey(0, 0)]
    jitter = {"jitter": [0.2, 0.2, 0.2], "grey": 1.0}
    after = clips(root, plain(augment=jitter))[ClipKey(0, 0)]
    assert (after["image"] != before["image"]).any()
    assert (after["image"].amax(1) == after["image"].amin(1)).all()
    assert (after["labels"] == before["labels"]).all()

    config = AugmentConfig(jitter=[0.2, 0.2, 0.2], frame_jitter=0.05)
    factors = [
        np.array(
            [
                draw.jitter
                for draw in draw_object_augmentations(each, (9, 9), (9, 9), 3, np.random.default_rng(0))
            ]
        )
        for each in (replace(config, frame_jitter=0.0), config)
    ]
    assert (factors[0] == factors[0][0]).all(), "once for a clip"
    change = factors[1] / factors[0]
    assert len(np.unique(change)) == 9 and 0 < abs(change - 1).max() <= 0.05, (
        "anew for each frame and property"
    )


def test_objects_are_those_of_the_first_frame(root, tmp_path):
    base = tmp_path / "DAVIS-16"
    for t in range(12):
        labels = label_map(t)
        labels[labels == 7] = 0 if t < 11 else 7  # appears in the last frame only
        labels[0] = VOID
        write_labels(base / f"Annotations/train/bear/{t:05d}.png", labels)
    data = clips(root, plain(objects=5))
    seen = set()
    for epoch in range(30):
        item = data[ClipKey(epoch, 0)]
        assert item["ids"] in ([3, 9], [3, 7, 9]) and (item["ids"] == [3, 9] or item["frames"][0] == "00011")
        assert item["labels"].max() <= 2
        seen.add(item["frames"][-1])
    assert "00011" in seen


def test_clips_run_backward_by_chance(root):
    data = clips(root, plain(reverse=0.5))
    orders = {tuple(np.sign(np.diff([int(s) for s in data[ClipKey(e, 0)]["frames"]]))) for e in range(20)}
    assert orders == {(1, 1), (-1, -1)}


def test_the_curriculum_follows_the_run(root):
    data = clips(root, plain(curriculum=[[0, 0], [0.5, 4]]))
    keys = [ClipKey(epoch, 0, progress=epoch / 20) for epoch in range(20)]
    spans = [np.ptp([int(s) for s in data[key]["frames"]]) for key in keys]
    assert set(spans[:10]) == {2} and max(spans[10:]) > 4


def test_a_window_without_an_object_is_drawn_again(root, tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[:6, :6] = 1
    for t in range(12):
        write_labels(tmp_path / f"DAVIS-16/Annotations/train/cow/{t:05d}.png", labels)
    data = clips(root, plain(image_size=[32, 32], augment={"crop": "short_side"}))
    for epoch in range(20):
        assert data[ClipKey(epoch, 1)]["objects"] >= 1
    for t in range(12):
        for name in ("bear", "cow"):
            write_labels(tmp_path / f"DAVIS-16/Annotations/train/{name}/{t:05d}.png", labels * 0)
    with pytest.raises(BadFileError, match="davis16: 20 clips in a row show no object in their first frame"):
        data[ClipKey(0, 0)]


def test_single_images_become_clips(tmp_path):
    for number in range(3):
        save(tmp_path / f"DUTS/Images/train/n{number}.jpg", picture(number, SIZE))
        save(tmp_path / f"DUTS/Annotations/train/n{number}.png", half_mask(SIZE))
    videos = scan(tmp_path, "duts", "train", need_flow=False, need_mask=True)
    item = ObjectClipDataset(videos, plain(augment=BENDS), 0)[ClipKey(0, 2)]
    assert item["frames"] == ["n2"] * 3 and item["objects"] == 1
    assert (item["labels"][0] != item["labels"][1]).any() and (item["image"][0] != item["image"][1]).any()


def test_files_that_do_not_fit(root, tmp_path):
    write_labels(tmp_path / "DAVIS-16/Annotations/train/bear/00003.png", np.ones((10, 10), np.uint8))
    with pytest.raises(BadFileError, match=r"davis16/bear: .*mask is 10x10 but its image is 80x60"):
        for epoch in range(20):
            clips(root, plain())[ClipKey(epoch, 0)]


def test_batches(root):
    config = plain(
        root=str(root), train=["davis16", "synthetic"], val=["davis16"], set_repeats={"davis16": 3}, workers=0,
        synthetic=SyntheticConfig(videos=2, size=[64, 96]),
    )  # fmt: skip
    loader = build_train_loader(config, 4, seed=1)
    assert len(loader) == (2 * 3 + 2) // 4
    batches = [*loader]
    for batch in batches:
        assert batch["image"].shape == (4, 3, 3, 64, 64) and batch["labels"].shape == (4, 3, 64, 64)
        assert "flow" not in batch and "mask" not in batch
        for row in range(4):
            assert batch["valid"][row].sum() == batch["objects"][row] == batch["labels"][row, 0].max()
    assert any(name.startswith("synthetic/") for batch in batches for name in batch["name"])


def test_videos_stream_at_their_own_size(root, tmp_path):
    (tmp_path / "DAVIS-16/Images/train").rename(tmp_path / "DAVIS-16/Images/val")
    (tmp_path / "DAVIS-16/Annotations/train").rename(tmp_path / "DAVIS-16/Annotations/val")
    config = plain(root=str(root), synthetic=SyntheticConfig(val_videos=2, val_frames=3, size=[64, 96]))
    video = build_object_videos(config, "davis16")[0]
    frames = [*video]
    assert len(video) == len(frames) == 12 and isinstance(video, ObjectVideo)
    np.testing.assert_array_equal(frames[4].labels, label_map(4))
    assert frames[4].image.shape == (*SIZE, 3)
    one, two = build_object_videos(config, "synthetic")
    assert [frame.stem for frame in one] == ["00000", "00001", "00002"]
    assert next(iter(two)).labels.max() >= 2


def test_real_sequences(shared_data):
    """A grey mask of DAVIS-2016 is object 1."""
    videos = scan(shared_data, "davis16", "val", need_flow=False, need_mask=True)
    cows = next(video for video in videos if video.name == "cows")
    item = ObjectClipDataset([cows], plain(augment={"crop": "short_side", **BENDS}), 0)[ClipKey(0, 0)]
    assert item["ids"] == [1] and 0.02 < (item["labels"] > 0).float().mean() < 1


def test_settings_that_do_not_go_together():
    for changes in (
        {"objects": 0}, {"sampler": "window"}, {"curriculum": [[0.5, 5]]}, {"curriculum": [[0, 5], [0, 6]]},
        {"set_repeats": {"davis17": 5}}, {"set_repeats": {"ytvos": 0}},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="data"):
            plain(**changes)
    with pytest.raises(ConfigError, match=r"data\.augment\.crop is for clips with objects"):
        DataConfig(augment=AugmentConfig(crop="area"))
    with pytest.raises(ConfigError, match="jitter is brightness, contrast and saturation"):
        AugmentConfig(jitter=[0.1])
    with pytest.raises(ConfigError, match=r"model\.kind=hmhi learns from one foreground"):
        Config(data=plain())
    assert Config(model=ModelConfig(kind="hmmn"), data=plain()).data.objects == 2
