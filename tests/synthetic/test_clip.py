import hashlib

import cv2
import numpy as np
import pytest

from hmhi.flow.compensate import compensate_camera
from hmhi.synthetic import render_clip

SIZE = (128, 160)


def warp_back(following: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """What frame t looks like if every pixel is fetched from where the flow says it went."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(
        following, x + flow[..., 0], y + flow[..., 1],
        interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-1,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_flow_leads_to_the_next_frame(seed):
    clip = render_clip(seed, 3, SIZE, clean=True)
    for t in (0, 1):
        # Softened, because resampling alone changes grain from one frame to the next.
        image, following = (
            cv2.GaussianBlur(clip.images[i].astype(np.float32), (0, 0), 1.5) for i in (t, t + 1)
        )
        fetched = warp_back(following, clip.flows[t])
        inside = fetched.min(axis=2) >= 0
        assert inside.mean() > 0.5
        error = np.abs(fetched - image).mean(axis=2)[inside]
        unmoved = np.abs(following - image).mean(axis=2)[inside]
        # The median leaves out pixels that get hidden, and smoke and shadows that slide over what they veil.
        assert np.median(error) < min(2, 0.5 * np.median(unmoved) + 0.5)


@pytest.mark.parametrize("seed", range(12))
def test_flow_carries_the_mask_to_the_next_mask(seed):
    clip = render_clip(seed, 3, SIZE, clean=True)
    for t in (0, 1):
        mask = clip.masks[t].astype(np.float32)
        carried = warp_back(clip.masks[t + 1].astype(np.float32), clip.flows[t])
        inside = (carried >= 0) & (mask > 0)
        if inside.sum() < 30:
            continue
        assert (carried[inside] > 0.5).mean() > 0.85


def test_most_scenes_show_a_salient_thing():
    areas = [render_clip(seed, 1, (64, 64), clean=True).masks.mean() for seed in range(40)]
    assert np.mean([0.002 < area < 0.7 for area in areas]) > 0.9
    assert 0.03 < np.mean(areas) < 0.3


@pytest.mark.parametrize("stride", [1, 2])
def test_joined_dis_flow_shows_less_that_is_not_there(stride):
    """Pixels beside the salient thing, which one of the two directions cannot see."""
    ghosts = {None: [], "homography": []}
    for seed in range(8):
        exact = render_clip(seed, 2, SIZE, "exact", stride)
        for join, errors in ghosts.items():
            clip = render_clip(seed, 2, SIZE, "dis", stride, join=join)
            np.testing.assert_array_equal(clip.images, exact.images)
            for t in (0, 1):
                wide = cv2.dilate(exact.masks[t], np.ones((13, 13), np.uint8))
                beside = (wide > 0) & (exact.masks[t] == 0)
                estimated = compensate_camera(clip.flows[t], "homography")
                true = compensate_camera(exact.flows[t], "homography")
                errors.append(np.linalg.norm(estimated - true, axis=2)[beside].mean())
    assert np.nanmean(ghosts["homography"]) < 0.9 * np.nanmean(ghosts[None])


def test_same_seed_same_clip_and_other_seed_another():
    first, again, other = (render_clip(seed, 2, SIZE, "mixed") for seed in (5, 5, 6))
    for name in ("images", "masks", "flows"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_kinds_of_flow_share_the_world():
    clips = {kind: render_clip(3, 2, SIZE, kind) for kind in ("exact", "degraded", "dis")}
    for kind in ("degraded", "dis"):
        np.testing.assert_array_equal(clips[kind].images, clips["exact"].images)
        np.testing.assert_array_equal(clips[kind].masks, clips["exact"].masks)
        assert np.abs(clips[kind].flows - clips["exact"].flows).mean() > 0.01


def test_shapes_types_and_ranges():
    clip = render_clip(1, 4, SIZE, "mixed", stride=2)
    assert clip.images.shape == (4, *SIZE, 3)
    assert clip.images.dtype == np.uint8
    assert clip.masks.shape == (4, *SIZE)
    assert set(np.unique(clip.masks)) <= {0, 1}
    assert clip.flows.shape == (4, *SIZE, 2)
    assert clip.flows.dtype == np.float32
    assert np.isfinite(clip.flows).all()


def test_stride_only_changes_which_frames_are_seen():
    dense = render_clip(2, 5, SIZE, clean=True)
    sparse = render_clip(2, 3, SIZE, clean=True, stride=2)
    np.testing.assert_array_equal(sparse.images, dense.images[::2])
    np.testing.assert_array_equal(sparse.flows, dense.flows[::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0, "size": SIZE}, "at least 1 frame"),
        ({"frames": 2, "size": (16, 64)}, "32 x 32"),
        ({"frames": 2, "size": SIZE, "flow": "raft"}, "'raft'; choose one of exact, degraded, dis, mixed"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_clip(0, **arguments)


# SHA-256 of masks (3 frames, 64 x 96, stride 4) as they were before objects had labels of their own
MASKS = {
    0: "32be3cca317276ef", 3: "21e187368dd58936", 7: "97b7d6a81a3399bf", 12: "f7b586904e367814",
    19: "40ebdb35d9a708df", 33: "2fc350eb9466541e",
}  # fmt: skip


def test_labels_merge_to_the_masks_of_the_seed():
    groups = set()
    for seed, digest in MASKS.items():
        for objects in (0, 1):
            clip = render_clip(seed, 3, (64, 96), stride=4, objects=objects)
            assert hashlib.sha256((clip.labels > 0).astype(np.uint8).tobytes()).hexdigest()[:16] == digest
            np.testing.assert_array_equal(clip.masks, clip.labels > 0)
        groups.add(int(clip.labels.max()))
    assert max(groups) > 1


def test_further_objects_join_the_world_of_a_seed():
    objects, seen, still, follows = 4, [], [], []
    for seed in range(8):
        clip = render_clip(seed, 2, (80, 112), clean=True, objects=objects)
        base = render_clip(seed, 2, (80, 112), clean=True)
        ids = [label for label in np.unique(clip.labels[0]) if label and (clip.labels[0] == label).sum() > 20]
        assert len(ids) <= max(objects, 3)
        seen.append(len(ids))
        untouched = (clip.labels == base.labels).all(axis=0)
        still.append(np.abs(clip.images[0].astype(int) - base.images[0])[untouched].mean())
        for label in ids:  # each label moves with its own flow
            carried = warp_back((clip.labels[1] == label).astype(np.float32), clip.flows[0])
            inside = (carried >= 0) & (clip.labels[0] == label)
            follows.append((carried[inside] > 0.5).mean())
    assert np.mean(seen) > objects - 1 and np.mean(follows) > 0.8
    assert np.median(still) < 2  # beside shadows, nothing else changes
    with pytest.raises(ValueError, match="need 0 to 4 objects, got 5"):
        render_clip(0, 1, (64, 64), objects=5)


def test_frames_too_large_to_render():
    with pytest.raises(ValueError, match="frames of 99999999 x 99999999 pixels are too large"):
        render_clip(0, 1, (99999999, 99999999))
