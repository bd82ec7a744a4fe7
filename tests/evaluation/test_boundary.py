import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import EDGE_PAIRS, edge_masks, mask_pairs

from benchmarks import reference_metrics
from hmhi.evaluation.boundary import contour, f_measure
from hmhi.evaluation.region import jaccard


def test_contour_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    expected = """
        11110
        10010
        11110
        00000"""
    assert contour(mask).tolist() == [[c == "1" for c in row.strip()] for row in expected.split()]


def test_f_by_hand():
    """One contour of 4 pixels lies within reach, the other is a far one: precision 1/2, recall 1."""
    truth = np.zeros((40, 60), bool)
    truth[10, 10] = True
    pred = truth.copy()
    pred[30, 40] = True
    assert contour(truth).sum() == 4
    assert f_measure(pred, truth) == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert f_measure(truth, pred) == f_measure(pred, truth)


@pytest.mark.parametrize("shift", range(12))
def test_tolerance_is_a_disc_of_the_stated_radius(shift):
    """At 480 x 854 the radius is ceil(0.008 * 979.7) = 8 pixels."""
    truth, pred = np.zeros((480, 854), bool), np.zeros((480, 854), bool)
    truth[:, 300:] = True
    pred[:, 300 + shift :] = True
    assert f_measure(pred, truth) == (1 if shift <= 8 else 0)


@pytest.mark.parametrize(("pred", "truth"), EDGE_PAIRS)
def test_edge_cases_match_the_reference(pred, truth):
    masks = edge_masks()
    value = f_measure(masks[pred], masks[truth])
    assert value == pytest.approx(reference_metrics.f_measure(masks[pred], masks[truth]), abs=1e-12)
    if {pred, truth} <= {"empty", "full"}:
        assert value == 1  # neither has a contour


@given(mask_pairs(), st.sampled_from([0.0, 0.008, 0.05, 0.3]))
def test_random_masks_match_the_reference(pair, tolerance):
    pred, truth = pair
    value = f_measure(pred, truth, tolerance)
    assert 0 <= value <= 1
    assert value == pytest.approx(reference_metrics.f_measure(pred, truth, tolerance), abs=1e-12)
    assert value == f_measure(truth, pred, tolerance)
    assert f_measure(pred, pred, tolerance) == 1


@given(mask_pairs())
def test_a_larger_tolerance_never_lowers_it(pair):
    values = [f_measure(*pair, tolerance) for tolerance in (0.0, 0.02, 0.1, 1.0)]
    assert values == sorted(values)


@given(mask_pairs())
def test_matches_vos_benchmark(pair):
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator(boundary=0.008)
    pred, truth = pair
    evaluator.feed_frame(pred.astype(np.uint8), truth.astype(np.uint8))
    if pred.any() or truth.any():  # it knows no object in two empty masks
        assert f_measure(pred, truth) == pytest.approx(evaluator.boundary_f[1][0], abs=1e-12)
        assert jaccard(pred, truth) == pytest.approx(evaluator.object_iou[1][0], abs=1e-12)


def test_refuses_masks_of_two_sizes():
    with pytest.raises(ValueError, match=r"4x5 .*4x6"):
        f_measure(np.zeros((4, 5), bool), np.zeros((4, 6), bool))
