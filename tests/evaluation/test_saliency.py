import json
import warnings
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_cases import EDGE_NAMES, edge_masks
from PIL import Image

from benchmarks import reference_metrics
from hmhi.evaluation.saliency import Saliency, f_curve, score_map
from hmhi.media.masks import read_levels


def maps() -> dict[str, np.ndarray]:
    """Soft maps that meet every edge mask."""
    rng = np.random.default_rng(3)
    shape = edge_masks()["empty"].shape
    hard = {name: mask * np.uint8(255) for name, mask in edge_masks().items()}
    soft = {
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "faint": rng.integers(3, 9, shape, dtype=np.uint8),
        "constant": np.full(shape, 127, np.uint8),
        "ramp": np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8), shape).copy(),
    }
    return hard | soft


CASES = [(prob, truth) for prob in maps() for truth in EDGE_NAMES]


def by_pysodmetrics(prob: np.ndarray, truth: np.ndarray) -> Saliency:
    oracle = pytest.importorskip("py_sod_metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a successor of Fmeasure is announced, and S divides 0 by 0
        f, e, s = oracle.Fmeasure(), oracle.Emeasure(), oracle.Smeasure()
        mae, weighted = oracle.MAE(), oracle.WeightedFmeasure()
        for measure in (f, e, s, mae, weighted):
            measure.step(prob, truth * np.uint8(255))
    f_results, e_results = f.get_results(), e.get_results()["em"]
    return Saliency(
        mae=mae.get_results()["mae"],
        s=s.get_results()["sm"],
        weighted_f=weighted.get_results()["wfm"],
        adaptive_f=f_results["fm"]["adp"],
        adaptive_e=e_results["adp"],
        precision=f_results["pr"]["p"][::-1],
        recall=f_results["pr"]["r"][::-1],
        f=f_results["fm"]["curve"][::-1],
        e=e_results["curve"][::-1],
    )


def assert_equal_scores(ours: Saliency, theirs: Saliency, without: tuple[str, ...] = ()) -> None:
    if np.isnan(theirs.s):  # an object in the last row or column leaves one of its quadrants empty
        assert 0 <= ours.s <= 1
        without = (*without, "s")
    for name in {field.name for field in fields(Saliency)} - set(without):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("prob", "truth"), CASES)
def test_matches_pysodmetrics_on_edge_cases(prob, truth):
    pair = maps()[prob], edge_masks()[truth]
    ours, theirs = score_map(*pair), by_pysodmetrics(*pair)
    # rounding keeps its variance of a constant 127 / 255 from being 0, on which S depends
    assert_equal_scores(ours, theirs, without=("s",) if prob == "constant" else ())


@pytest.mark.parametrize(("prob", "truth"), CASES[::5])
def test_matches_the_plain_reference(prob, truth):
    pair = maps()[prob], edge_masks()[truth]
    ours = score_map(*pair)
    f, e = reference_metrics.f_and_e_curves(*pair)
    np.testing.assert_allclose(ours.f, f, atol=1e-12)
    np.testing.assert_allclose(ours.e, e, atol=1e-12)
    assert ours.mae == pytest.approx(reference_metrics.mean_absolute_error(*pair), abs=1e-12)


@pytest.mark.parametrize("stretch", [True, False])
@pytest.mark.parametrize("definitions", ["toolbox", "release"])
def test_every_edge_case_is_a_number_between_0_and_1(definitions, stretch):
    n = edge_masks()["empty"].size
    for prob, truth in CASES:
        score = score_map(maps()[prob], edge_masks()[truth], stretch=stretch, definitions=definitions)
        for field in fields(Saliency):
            values = np.asarray(getattr(score, field.name))
            assert np.isfinite(values).all(), (prob, truth, field.name)
            # E divides by N - 1, so a perfect map scores N / (N - 1)
            assert values.min() >= 0 and values.max() <= n / (n - 1) + 1e-12, (prob, truth, field.name)


@pytest.mark.parametrize("truth", [name for name in EDGE_NAMES if name not in ("empty", "full")])
def test_a_perfect_map_scores_1_and_an_inverted_one_does_not(truth):
    mask = edge_masks()[truth]
    perfect, inverted = score_map(mask * np.uint8(255), mask), score_map(~mask * np.uint8(255), mask)
    assert perfect.mae == 0
    assert inverted.mae == 1
    assert [perfect.f.max(), perfect.weighted_f, perfect.adaptive_f] == pytest.approx([1, 1, 1])
    assert perfect.e.max() == pytest.approx(mask.size / (mask.size - 1))
    assert perfect.s == pytest.approx(1)
    assert inverted.s <= 0.5 and inverted.weighted_f < 0.5


def test_by_hand():
    """Four pixels, two levels: threshold 200 finds one of two object pixels and nothing else."""
    prob = np.array([[200, 0], [0, 0]], np.uint8)
    truth = np.array([[True, True], [False, False]])
    score = score_map(prob, truth, stretch=False)
    assert score.mae == pytest.approx((55 / 255 + 1) / 4)
    assert (score.precision[0], score.recall[0]) == (0.5, 1)
    assert (score.precision[200], score.recall[200]) == (1, 0.5)
    assert (score.precision[201], score.recall[201]) == (0, 0)
    assert score.f[200] == pytest.approx(1.3 * 1 * 0.5 / (0.3 * 1 + 0.5))
    assert f_curve(np.array([0.0, 1.0]), np.array([0.0, 1.0])).tolist() == [0, 1]


def test_stretch_makes_a_faint_map_equal_to_its_stretched_self():
    truth = edge_masks()["box"]
    faint = np.where(truth, 9, 4).astype(np.uint8)
    hard = truth * np.uint8(255)
    for definitions in ("toolbox", "release"):
        assert score_map(faint, truth, definitions=definitions).f.tolist() == pytest.approx(
            score_map(hard, truth, definitions=definitions).f.tolist()
        )
    assert score_map(faint, truth, stretch=False).mae > 0.1


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30))
def test_random_maps(seed, height, width):
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
    prob = rng.integers(0, rng.choice([2, 30, 256]), (height, width), dtype=np.uint8)
    ours, theirs = score_map(prob, truth), by_pysodmetrics(prob, truth)
    # a level that equals the adaptive threshold may fall to either side of it by rounding
    assert_equal_scores(ours, theirs, without=("adaptive_f", "adaptive_e"))
    assert (np.diff(ours.recall) <= 0).all()
    mirrored = score_map(prob[:, ::-1].copy(), truth[:, ::-1].copy())
    assert mirrored.mae == pytest.approx(ours.mae)
    np.testing.assert_allclose(mirrored.f, ours.f)
    np.testing.assert_allclose(mirrored.e, ours.e)


@given(st.integers(0, 2**32 - 1))
def test_f_e_and_mae_do_not_depend_on_where_pixels_lie(seed):
    rng = np.random.default_rng(seed)
    truth, prob = rng.random((9, 11)) < 0.4, rng.integers(0, 256, (9, 11), dtype=np.uint8)
    order = rng.permutation(truth.size)
    ours = score_map(prob, truth)
    moved = score_map(prob.reshape(-1)[order].reshape(9, 11), truth.reshape(-1)[order].reshape(9, 11))
    assert moved.mae == pytest.approx(ours.mae)
    np.testing.assert_allclose(moved.f, ours.f)
    np.testing.assert_allclose(moved.e, ours.e)


def test_pysodmetrics_own_examples(shared_data):
    folder = shared_data / "pysod_testdata" / "examples"
    expected = json.loads((folder / "version_performance.json").read_text())[
        "v1_4_3"
    ]  # later entries list new measures only
    scores = []
    for truth_file in sorted((folder / "test_data" / "masks").iterdir()):
        prob = np.array(Image.open(folder / "test_data" / "preds" / truth_file.name).convert("L"))
        scores.append(score_map(prob, read_levels(truth_file)[0] > 128))
    assert len(scores) == 3
    f, e = (np.mean([getattr(score, name) for score in scores], axis=0) for name in ("f", "e"))
    ours = {
        "MAE": np.mean([score.mae for score in scores]),
        "Smeasure": np.mean([score.s for score in scores]),
        "wFmeasure": np.mean([score.weighted_f for score in scores]),
        "adpFm": np.mean([score.adaptive_f for score in scores]),
        "adpEm": np.mean([score.adaptive_e for score in scores]),
        "maxFm": f.max(), "meanFm": f.mean(), "maxEm": e.max(), "meanEm": e.mean(),
    }  # fmt: skip
    for name, value in ours.items():
        assert value == pytest.approx(expected[name], abs=1e-5), name


def test_refuses_what_it_is_not_defined_for():
    truth = np.zeros((4, 5), bool)
    with pytest.raises(ValueError, match="float"):
        score_map(np.zeros((4, 5)), truth)
    with pytest.raises(ValueError, match=r"4x6 .*4x5"):
        score_map(np.zeros((4, 6), np.uint8), truth)
