import itertools

import cv2
import numpy as np
import pytest

from hmhi.inference.refine import guided_filter, refine_edges, refines


def windows(height, width, radius):
    for y, x in itertools.product(range(height), range(width)):
        yield y, x, np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]


def box_mean(x, radius):
    out = np.empty_like(x)
    for y, column, window in windows(*x.shape[:2], radius):
        out[y, column] = x[window].mean(axis=(0, 1))
    return out


def textbook(guide, target, radius, eps):
    """Eq. 14-16 as they are written: ridge regression in each window, the mean of all that cover a pixel."""
    height, width = target.shape
    image = guide / 255.0
    slope, offset = np.empty((height, width, 3)), np.empty((height, width))
    for y, x, window in windows(height, width, radius):
        colours, values = image[window].reshape(-1, 3), target[window].ravel()
        mean = colours.mean(axis=0)
        covariance = np.cov(colours.T, bias=True)
        cross = (colours * values[:, None]).mean(axis=0) - mean * values.mean()
        slope[y, x] = np.linalg.solve(covariance + eps * np.eye(3), cross)
        offset[y, x] = values.mean() - slope[y, x] @ mean
    return (box_mean(slope, radius) * image).sum(axis=2) + box_mean(offset, radius)


@pytest.mark.parametrize(("radius", "eps"), [(2, 1e-2), (3, 1e-3), (40, 1e-2)])
def test_the_exact_filter_is_the_textbook(radius, eps):
    rng = np.random.default_rng(radius)
    guide = rng.integers(0, 256, (13, 17, 3), np.uint8)
    target = rng.random((13, 17), np.float32)
    found = guided_filter(guide, target, radius, eps)
    np.testing.assert_allclose(found, textbook(guide, target.astype(float), radius, eps), atol=1e-4)


def test_a_guide_without_edges_leaves_the_mean_of_means():
    target = np.random.default_rng(0).random((12, 20), np.float32)
    for colour in (0, 90, 255):
        found = guided_filter(np.full((12, 20, 3), colour, np.uint8), target, 3)
        np.testing.assert_allclose(found, box_mean(box_mean(target, 3), 3), atol=1e-4)


def test_a_blurred_mask_gets_its_edge_back():
    """With the fast filter too, at several sizes of the frame."""
    for height, width in ((120, 160), (480, 854)):
        y, x = np.mgrid[:height, :width]
        truth = (x / width + 0.3 * y / height > 0.6) & (y > height // 5)
        guide = np.where(truth[..., None], (200, 120, 60), (60, 110, 140))
        guide = (guide + np.random.default_rng(0).normal(0, 4, guide.shape)).clip(0, 255).astype(np.uint8)
        small = cv2.resize(truth.astype(np.float32), dsize=(16, 16), interpolation=cv2.INTER_AREA)
        blurred = cv2.resize(small, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
        refined = refine_edges(
            guide, blurred, (64, 64)
        )  # the network's output has a quarter of its input's cells
        before, after = (np.mean((prob > 0.5) != truth) for prob in (blurred, refined))
        assert after < before / 3
        assert refined.dtype == np.float32
        assert 0 <= refined.min() <= refined.max() <= 1


def test_frames_of_a_few_pixels():
    for height, width in ((1, 1), (1, 9), (3, 2)):
        prob = np.full((height, width), 0.7, np.float32)
        found = refine_edges(np.full((height, width, 3), 8, np.uint8), prob, (192, 192))
        np.testing.assert_allclose(found, prob, atol=1e-5)


def test_where_edges_are_refined():
    assert not refines("none", (4000, 4000), (64, 64))
    assert refines("guided", (64, 64), (512, 512))
    assert refines("auto", (480, 854), (192, 192))
    assert not refines("auto", (480, 854), (512, 512))
