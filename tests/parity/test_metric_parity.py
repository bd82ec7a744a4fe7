"""Metrics against the numbers of the authors' release on generated pairs of map and mask."""

import json
from dataclasses import replace
from pathlib import Path

import make_inputs
import numpy as np
import pytest
from PIL import Image

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS
from hmhi.evaluation.region import jaccard
from hmhi.evaluation.runner import evaluate
from hmhi.evaluation.saliency import score_map

pytestmark = pytest.mark.parity

REFERENCE = json.loads((Path(__file__).parent / "metrics.json").read_text())
PAIRS = {name: (prob, truth > 0) for name, prob, truth in make_inputs.metric_pairs()}


@pytest.mark.parametrize("row", REFERENCE["pairs"], ids=lambda row: row["name"])
def test_pair(row):
    prob, truth = PAIRS[row["name"]]
    assert list(prob.shape) == row["shape"]
    assert jaccard(prob > 128, truth) == pytest.approx(row["J"], abs=1e-9)
    assert f_measure(prob > 128, truth) == pytest.approx(row["F"], abs=1e-9)
    score = score_map(prob, truth, stretch=False, definitions="release")
    assert score.mae == pytest.approx(row["MAE"], abs=1e-5)
    assert score.f.max() == pytest.approx(row["maxF"], abs=1e-5)
    assert score.e.max() == pytest.approx(row["maxE"], abs=1e-5)
    for threshold, value in row["F_curve_at"].items():
        assert score.f[int(threshold)] == pytest.approx(value, abs=1e-5)
    for threshold, value in row["E_curve_at"].items():
        assert score.e[int(threshold)] == pytest.approx(value, abs=1e-5)
    if row["S"] is None:  # the release fails here: an empty quadrant
        assert 0 <= score.s <= 1
    else:
        assert score.s == pytest.approx(row["S"], abs=1e-5)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> tuple[Path, Path]:
    """The five videos of four frames that the release's averages were computed on."""
    root = tmp_path_factory.mktemp("metric_videos")
    for index, (_, prob, truth) in enumerate(make_inputs.metric_pairs()[:20]):
        for kind, pixels in (("pred", prob), ("truth", truth)):
            folder = root / kind / f"vid{index // 4}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"vid{index // 4}_0000{index % 4}.png")
    return root / "pred", root / "truth"


def test_masks_by_the_release_protocol(trees):
    result = evaluate(*trees, MASK_PROTOCOLS["release-eval"])
    expected = REFERENCE["protocol"]
    assert [result.metrics["J_mean"], result.metrics["F_mean"]] == expected["J_F_all_frames_rounded3"]
    for name, values in expected["per_video_[J,F]"].items():
        scores = result.sequences[name].metrics
        for statistic in ("mean", "recall", "decay"):
            ours = [scores[f"J_{statistic}"], scores[f"F_{statistic}"]]
            assert ours == pytest.approx(values[statistic], abs=1e-9), (name, statistic)


def test_masks_without_the_ends(trees):
    metrics = evaluate(*trees, replace(MASK_PROTOCOLS["release-eval"], drop_ends=True)).metrics
    expected = REFERENCE["protocol"]["J_F_drop_first_last_rounded3"]
    assert [metrics["J_mean"], metrics["F_mean"]] == expected


@pytest.mark.parametrize("protocol", ["release", "release-eval"])
def test_maps_by_the_release_protocol(trees, protocol):
    """Every map that counts spans the full range already, so a second stretch changes nothing."""
    metrics = evaluate(*trees, MAP_PROTOCOLS[protocol]).metrics
    expected = REFERENCE["protocol"]["vsod_[MAE,maxF,maxE,S]_frames_1_to_-1"]
    ours = [metrics[name] for name in ("MAE", "max_F", "max_E", "S")]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_masks_from_raw_logits_by_the_release_protocol(tmp_path):
    """A stretch while scoring finds the foreground that the release's writer stretched into existence."""
    stored = np.load(Path(__file__).parent / "postproc.npz")
    assert set(stored) == {name for name, _, _ in make_inputs.postproc_cases()}
    written = stored["weak"]
    raw = (written.astype(np.float64) * 0.1 + 1).astype(np.uint8)  # a probability that never passes 0.1
    for kind, pixels in (("raw", raw), ("written", written), ("truth", (written > 128) * np.uint8(255))):
        (tmp_path / kind / "video").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / kind / "video" / "0.png")
    truth = tmp_path / "truth"
    assert evaluate(tmp_path / "written", truth, MASK_PROTOCOLS["release"]).metrics["J_mean"] == 1
    assert evaluate(tmp_path / "written", truth, MASK_PROTOCOLS["release-eval"]).metrics["J_mean"] == 1
    assert evaluate(tmp_path / "raw", truth, MASK_PROTOCOLS["release"]).metrics["J_mean"] > 0.9
    assert evaluate(tmp_path / "raw", truth, MASK_PROTOCOLS["release-eval"]).metrics["J_mean"] == 0
