import numpy as np
import pytest
from mask_trees import disc

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.objects import mean_of_frames, mean_of_objects, score_objects, split_labels
from hmhi.evaluation.region import jaccard


def test_each_object_is_scored_by_itself():
    pred = np.stack([disc(2), disc(12), np.zeros_like(disc()), np.zeros_like(disc()), disc()])
    truth = np.stack([disc(), disc(12), np.zeros_like(disc()), disc(), np.zeros_like(disc())])
    scores = score_objects(pred, truth)
    assert scores.shape == (5, 2)
    assert scores[0].tolist() == [jaccard(disc(2), disc()), f_measure(disc(2), disc())]
    assert scores[1:].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert (score_objects(disc(2), disc()) == scores[:1]).all()
    assert score_objects(pred[:0], truth[:0]).shape == (0, 2)


def test_void_pixels_count_neither_for_nor_against():
    pred, truth = disc(4), disc()
    void = pred ^ truth
    assert score_objects(pred, truth, void).tolist() == [[1, 1]]
    half = np.zeros_like(void)
    half[:, :15] = True
    assert score_objects(pred, truth, half)[0].tolist() == [
        jaccard(pred & ~half, truth & ~half),
        f_measure(pred & ~half, truth & ~half),
    ]


def test_labels_split_by_id():
    labels = np.array([[0, 1, 3], [3, 255, 1]], np.uint8)
    masks = split_labels(labels, (1, 2, 3))
    assert masks.dtype == bool and masks.shape == (3, 2, 3)
    assert masks.sum(axis=(1, 2)).tolist() == [2, 0, 2]
    assert split_labels(labels, ()).shape == (0, 2, 3)


def test_means_are_over_objects_not_over_videos():
    """One video of three good objects and one of a bad one: three quarters, not a half."""
    good = mean_of_frames([np.ones((3, 2)), np.ones((3, 2))])
    bad = mean_of_frames([np.zeros((1, 2))])
    assert mean_of_objects([good, bad]) == (0.75, 0.75)


def test_frames_in_which_an_object_does_not_count_are_left_out():
    late = np.array([[0.2, 0.4], [np.nan, np.nan], [np.nan, np.nan]])
    there = np.array([[0.4, 0.6], [0.5, 0.1], [np.nan, np.nan]])
    means = mean_of_frames([late, there])
    np.testing.assert_allclose(means[:2], [[0.3, 0.5], [0.5, 0.1]])
    assert np.isnan(means[2]).all()
    assert mean_of_objects([means]) == pytest.approx((0.4, 0.3))
    with pytest.raises(ValueError, match="no object"):
        mean_of_objects([means[2:]])


@pytest.mark.parametrize(
    ("pred", "truth"),
    [
        (np.zeros((2, 4, 4), bool), np.zeros((1, 4, 4), bool)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), bool)),
        (np.zeros((1, 2, 4, 4), bool), np.zeros((1, 2, 4, 4), bool)),
    ],
    ids=["objects", "dtype", "dimensions"],
)
def test_pairs_that_do_not_match_are_refused(pred, truth):
    with pytest.raises(ValueError, match="masks must be"):
        score_objects(pred, truth)


def test_as_vos_benchmark_scores_labels():
    """An independent implementation of the DAVIS measures."""
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator(boundary=0.008)
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (6, 8), np.uint8), np.ones((12, 12), np.uint8))
    pred = np.roll(truth, 2, axis=1)
    evaluator.feed_frame(pred, truth)
    iou, boundary = evaluator.conclude()
    scores = score_objects(split_labels(pred, (1, 2, 3)), split_labels(truth, (1, 2, 3)))
    np.testing.assert_allclose(100 * scores[:, 0], [np.mean(iou[i]) for i in (1, 2, 3)], atol=1e-9)
    np.testing.assert_allclose(100 * scores[:, 1], [np.mean(boundary[i]) for i in (1, 2, 3)], atol=1e-9)
