import numpy as np
from PIL import Image

from hmhi.flow.baseline import follow_mask, threshold_flow
from hmhi.flow.codec import flow_to_rgb


def moving_square() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:80, :100].astype(np.float32)
    flow = np.stack([4 + x * 0.02, y * 0.03], axis=2)
    truth = np.zeros((80, 100), np.uint8)
    truth[20:50, 30:60] = 1
    flow[truth > 0] += (-6, 3)
    return flow, truth


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def test_a_moving_square_under_a_moving_camera():
    flow, truth = moving_square()
    mask = threshold_flow(flow)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert overlap(mask, truth) > 0.98
    assert overlap(threshold_flow(flow_to_rgb(flow)), truth) > 0.95


def test_no_motion_is_no_foreground():
    assert not threshold_flow(np.zeros((40, 50, 2), np.float32)).any()


def test_real_flow_is_better_than_all_foreground(shared_data):
    folder = shared_data / "davis16"
    scores, shares = [], []
    for name in ("cows", "drift-straight", "libby"):
        flow = np.asarray(Image.open(folder / "Flow" / name / "00010.jpg").convert("RGB"))
        truth = np.asarray(Image.open(folder / "Annotations/480p" / name / "00010.png").convert("L")) > 127
        scores.append(overlap(threshold_flow(flow) > 0, truth))
        shares.append(truth.mean())
    assert np.mean(scores) > 0.5 > 3 * np.mean(shares)


def test_a_mask_is_read_where_its_pixels_came_from():
    mask = np.zeros((6, 8), np.float32)
    mask[2:4, 1:3] = 1
    back = np.full((6, 8, 2), (-3.0, 1.0), np.float32)  # it moved 3 to the right and 1 up
    expected = np.zeros((6, 8), np.float32)
    expected[1:3, 4:6] = 1
    np.testing.assert_array_equal(follow_mask(mask, back), expected)
    assert not follow_mask(np.ones((6, 8), np.float32), back * 9).any()  # from beyond the border
