import numpy as np
import pytest
from hypothesis import given
from mask_cases import EDGE_PAIRS, edge_masks, mask_pairs

from benchmarks import reference_metrics
from hmhi.evaluation.region import jaccard


def test_hand_computed():
    pred, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    pred[:2, :2] = True  # 4 pixels, of which 2 are met
    truth[:2, 1:4] = True  # 6 pixels
    assert jaccard(pred, truth) == 2 / 8


@pytest.mark.parametrize(("pred", "truth"), EDGE_PAIRS)
def test_edge_cases_match_the_reference(pred, truth):
    masks = edge_masks()
    value = jaccard(masks[pred], masks[truth])
    assert value == reference_metrics.jaccard(masks[pred], masks[truth])
    assert (value == 1) == (pred == truth)


@given(mask_pairs())
def test_bounds_and_symmetry(pair):
    pred, truth = pair
    value = jaccard(pred, truth)
    assert 0 <= value <= 1
    assert value == jaccard(truth, pred) == jaccard(pred[::-1, ::-1], truth[::-1, ::-1])
    assert jaccard(pred, pred) == 1


@given(mask_pairs())
def test_any_permutation_of_the_pixels_gives_the_same_value(pair):
    pred, truth = pair
    order = np.random.default_rng(0).permutation(pred.size)
    shuffled = [mask.reshape(-1)[order].reshape(mask.shape) for mask in pair]
    assert jaccard(*shuffled) == jaccard(pred, truth)


def test_refuses_what_it_is_not_defined_for():
    small, large = np.zeros((4, 5), bool), np.zeros((4, 6), bool)
    with pytest.raises(ValueError, match=r"4x5 .*4x6"):
        jaccard(small, large)
    with pytest.raises(ValueError, match="uint8"):
        jaccard(small, small.astype(np.uint8))
    with pytest.raises(ValueError, match="non-empty"):
        jaccard(np.zeros((0, 5), bool), np.zeros((0, 5), bool))
