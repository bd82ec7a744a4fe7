from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import pytest

from hmhi.flow.estimate import build_estimator


def textured_pair(
    shift: tuple[int, int], height: int = 96, width: int = 130
) -> tuple[np.ndarray, np.ndarray]:
    """Two crops of one picture, so that content moves by `shift` (x, y) pixels."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (height + 40, width + 40, 3)), (0, 0), 2.5)
    picture = ((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8)
    x, y = 20 - shift[0], 20 - shift[1]
    return picture[20 : 20 + height, 20 : 20 + width], picture[y : y + height, x : x + width]


@pytest.mark.parametrize("shift", [(4, 0), (0, -3), (-5, 2)])
def test_dis_finds_a_translation(shift):
    flow = build_estimator("dis")(*textured_pair(shift))
    assert flow.dtype == np.float32
    assert flow.shape == (96, 130, 2)
    inner = flow[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), shift, atol=0.15)
    assert np.percentile(np.abs(inner - np.float32(shift)), 95) < 0.5


def test_dis_speaks_of_the_pixels_of_large_frames():
    shift = (9, -6)
    frames = textured_pair((3, -2), 300, 420)
    larger = [cv2.resize(frame, dsize=None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for frame in frames]
    flow = build_estimator("dis")(*larger)
    assert flow.dtype == np.float32
    assert flow.shape == (900, 1260, 2)
    np.testing.assert_allclose(np.median(flow[60:-60, 60:-60], axis=(0, 1)), shift, atol=0.4)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 31), (101, 67), (3, 9000)])
def test_dis_takes_any_size(size):
    frame = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    flow = build_estimator("dis")(frame, frame)
    assert flow.shape == (*size, 2)
    assert np.isfinite(flow).all()


def test_dis_on_a_real_pair_follows_the_stored_flow(shared_data):
    from PIL import Image

    from hmhi.flow.codec import rgb_to_flow

    folder = shared_data / "davis16"
    frames = [
        np.asarray(Image.open(folder / "JPEGImages/480p/camel" / f"0001{i}.jpg").convert("RGB"))
        for i in (0, 1)
    ]
    flow = build_estimator("dis")(*frames)
    stored = rgb_to_flow(np.asarray(Image.open(folder / "Flow/camel/00010.jpg").convert("RGB")))
    cosine = (flow * stored).sum() / np.linalg.norm(flow) / np.linalg.norm(stored)
    assert cosine > 0.9


def test_bad_requests_are_named():
    frame = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="'flownet'; choose one of dis, gmflow, raft, raft-small"):
        build_estimator("flownet")
    with pytest.raises(ValueError, match="one size"):
        build_estimator("dis")(frame, frame[:-1])
    with pytest.raises(ValueError, match="uint8"):
        build_estimator("dis")(frame.astype(np.float32), frame.astype(np.float32))


def test_dis_serves_several_threads_at_once():
    """OpenCV's own object gives other flow, or crashes, where two threads use it."""
    dis = build_estimator("dis")
    clips = [np.random.default_rng(seed).integers(0, 255, (6, 120, 160, 3), np.uint8) for seed in range(2)]
    expected = [[dis(a, b) for a, b in pairwise(clip)] for clip in clips]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda clip: [dis(a, b) for a, b in pairwise(clip)], clips * 2))
    np.testing.assert_array_equal(found, expected * 2)
