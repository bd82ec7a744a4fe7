import json
from dataclasses import replace

import numpy as np
import pytest
from mask_trees import disc, make_trees, save, save_palette
from PIL import Image

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.files import EvaluationError
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS
from hmhi.evaluation.region import jaccard
from hmhi.evaluation.runner import evaluate
from hmhi.media.masks import write_labels

DAVIS, ALL, RELEASE = (MASK_PROTOCOLS[name] for name in ("davis16", "all-frames", "release"))
SPARSE = MASK_PROTOCOLS["fbms"]


@pytest.mark.parametrize("method", ["matnet", "pdb", "tis"])
def test_official_numbers_of_every_frame(shared_data, method):
    """The published table has three decimals; the first and the last frame are left out."""
    results = shared_data / "davis16_results"
    official = json.loads((results / f"{method}_per_frame.json").read_text())
    names = sorted(set(official) - {"id"})
    assert len(names) >= 12
    result = evaluate(
        results / method, shared_data / "davis16" / "Annotations" / "480p", DAVIS, sequences=names
    )
    for name in names:
        frames = list(result.sequences[name].frames.values())
        for measure in ("J", "F"):
            expected = [float(value) for value in official[name][measure]]
            np.testing.assert_allclose(
                [frame.metrics[measure] for frame in frames], expected, atol=0.0006, err_msg=name
            )


@pytest.mark.parametrize(
    "names",
    [
        ("libby", "car-shadow", "blackswan"),
        pytest.param(
            ("bmx-trees", "breakdance", "camel", "cows", "dog", "drift-straight", "goat", "horsejump-high",
             "motocross-jump"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["three", "nine"],
)  # fmt: skip
def test_saliency_of_real_maps_as_pysodmetrics_gives_it(shared_data, names):
    expected = json.loads((shared_data / "softmaps_mtnet_pysod_per_video.json").read_text())
    result = evaluate(
        shared_data / "softmaps_mtnet",
        shared_data / "davis16" / "Annotations" / "480p",
        MAP_PROTOCOLS["vsod-all-frames"],
        sequences=names,
        missing="skip",  # the maps lack the last frame of each sequence
    )
    assert result.left_out["missing predictions"] == len(names)
    for name in names:
        scores = result.sequences[name]
        assert len(scores.frames) == expected[name]["n"]
        for ours, theirs in (("S", "Sm"), ("MAE", "MAE"), ("max_F", "maxF"), ("max_E", "maxE")):
            assert scores.metrics[ours] == pytest.approx(expected[name][theirs], abs=1e-5), (name, ours)


def test_means_of_frames_then_of_sequences(tmp_path):
    trees = make_trees(tmp_path, {"a": 5, "b": 3})
    result = evaluate(*map(str, trees), "davis16")
    assert result.protocol == DAVIS
    frames = {
        name: [(jaccard(disc(i + 1), disc(i)), f_measure(disc(i + 1), disc(i))) for i in range(1, count - 1)]
        for name, count in (("a", 5), ("b", 3))
    }
    j, f = np.mean([np.mean(scores, axis=0) for scores in frames.values()], axis=0)
    assert result.metrics["J_mean"] == pytest.approx(j)
    assert result.metrics["F_mean"] == pytest.approx(f)
    assert result.metrics["JF_mean"] == pytest.approx((j + f) / 2)
    assert list(result.sequences["a"].frames) == ["00001", "00002", "00003"]
    assert result.left_out == {"first and last of their sequence": 4}
    assert any("2 sequences scored" in note and "20" in note for note in result.notes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_any_number_of_threads_gives_the_same_numbers(tmp_path, jobs):
    trees = make_trees(tmp_path, {"a": 6, "b": 4})
    assert evaluate(*trees, ALL, jobs=jobs).metrics == evaluate(*trees, ALL, jobs=2).metrics


def test_missing_frames_are_listed_zeroed_or_skipped(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 5, "b": 5, "c": 5}, shift=0)
    (pred / "a" / "00002.png").unlink()
    (pred / "b" / "00004.png").unlink()
    for path in (pred / "c").iterdir():
        path.unlink()
    (pred / "c").rmdir()
    with pytest.raises(EvaluationError) as failure:
        evaluate(pred, truth, ALL)
    assert len(failure.value.problems) == 3
    assert "a: 1 of 5 predictions missing: 00002" in str(failure.value)
    assert "b: 1 of 5 predictions missing: 00004" in str(failure.value)
    assert "c: no predictions" in str(failure.value)
    with pytest.raises(EvaluationError) as failure:
        evaluate(pred, truth, DAVIS)
    assert "00004" not in str(failure.value), "a frame that the protocol leaves out may be missing"

    zero = evaluate(pred, truth, ALL, missing="zero")
    assert zero.sequences["a"].metrics["J_mean"] == pytest.approx(4 / 5)
    assert zero.sequences["c"].metrics["F_mean"] == 0
    skip = evaluate(pred, truth, ALL, missing="skip")
    assert skip.metrics["J_mean"] == 1
    assert set(skip.sequences) == {"a", "b"}
    assert skip.left_out == {"missing predictions": 7}
    assert sum("00002" in note for note in skip.notes) == 1


def test_missing_maps_scored_as_zero_are_the_worst(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 4}, shift=0)
    (pred / "a" / "00001.png").unlink()
    metrics = evaluate(pred, truth, MAP_PROTOCOLS["vsod-all-frames"], missing="zero").metrics
    assert metrics["MAE"] == pytest.approx(1 / 4)
    assert metrics["wF"] == pytest.approx(3 / 4)
    assert metrics["max_F"] == pytest.approx(3 / 4)


def test_extra_predictions_are_an_error_unless_expected(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 4, "b": 4})
    for path in sorted((truth / "b").iterdir()):
        path.unlink()
    (truth / "b").rmdir()
    save(pred / "a" / "00009.png", disc())
    with pytest.raises(EvaluationError) as failure:
        evaluate(pred, truth, ALL)
    assert "sequence 'b', which has no annotations" in str(failure.value)
    assert "a: predictions without annotation: 00009" in str(failure.value)
    assert str(failure.value).count("--extra skip") == 1
    skipped = evaluate(pred, truth, ALL, extra="skip")
    assert skipped.left_out == {"of sequences that are not scored": 4, "without annotation": 1}
    chosen = evaluate(pred, truth, SPARSE, sequences=["a"])
    assert chosen.left_out == skipped.left_out


def test_another_size_is_an_error_that_names_both(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3}, shift=0)
    save(pred / "a" / "00001.png", np.kron(disc(1), np.ones((2, 2), bool)))
    with pytest.raises(EvaluationError, match=r"a/00001: prediction is 60x40 .* annotation 30x20"):
        evaluate(pred, truth, ALL)
    assert evaluate(pred, truth, ALL, resize="nearest").metrics["J_mean"] == 1
    resized = evaluate(pred, truth, RELEASE)
    assert resized.metrics["J_mean"] > 0.9, "the release resizes, bilinearly"
    assert resized.notes == [], "a resize does not make a mask soft"
    save_palette(pred / "a" / "00001.png", np.kron(disc(1), np.ones((2, 2), bool)))
    assert evaluate(pred, truth, RELEASE).metrics == resized.metrics


def test_every_bad_image_is_reported_at_once(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 8})
    (pred / "a" / "00000.png").write_bytes(b"")
    whole = (pred / "a" / "00001.png").read_bytes()
    (pred / "a" / "00001.png").write_bytes(whole[: len(whole) // 2])
    (pred / "a" / "00002.png").write_text("<html>not found</html>")
    Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(pred / "a" / "00003.png")
    colour = np.zeros((20, 30, 3), np.uint8)
    colour[:, :, 0] = 200
    Image.fromarray(colour).save(pred / "a" / "00004.png")
    (truth / "a" / "00005.png").write_bytes(b"GIF89a")
    with pytest.raises(EvaluationError) as failure:
        evaluate(pred, truth, ALL)
    assert len(failure.value.problems) == 6
    message = str(failure.value)
    for stem, reason in (
        ("00000", "file is empty"), ("00001", "damaged"), ("00002", "not an image"), ("00003", "I;16"),
        ("00004", "colour image"), ("00005", "annotation"),
    ):  # fmt: skip
        assert any(f"a/{stem}" in line and reason in line for line in message.splitlines()), (stem, message)


@pytest.mark.parametrize("form", ["palette", "two objects", "grey 0/1", "bilevel", "grey as colour", "alpha"])
def test_every_usual_way_to_store_a_mask_reads_the_same(tmp_path, form):
    _, truth = make_trees(tmp_path, {"a": 1})
    mask, path = disc(0), tmp_path / "other" / "a" / "00000.png"
    path.parent.mkdir(parents=True)
    if form == "palette":
        save_palette(path, mask)
    elif form == "two objects":
        save_palette(path, mask * (1 + (np.arange(30) > 9)))
    elif form == "grey 0/1":
        Image.fromarray(mask.astype(np.uint8)).save(path)
    elif form == "bilevel":
        Image.fromarray(mask).save(path)
    else:
        grey = Image.fromarray(mask * np.uint8(255))
        grey.convert("RGB" if form == "grey as colour" else "RGBA").save(path)
    result = evaluate(tmp_path / "other", truth, ALL)
    assert result.metrics["J_mean"] == 1
    assert result.notes == []


def test_objects_of_the_annotation_are_merged(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 1}, shift=0)
    save_palette(truth / "a" / "00000.png", disc(0) * (1 + (np.arange(30) > 9)))
    assert evaluate(pred, truth, SPARSE).metrics["J_mean"] == 1
    write_labels(
        truth / "a" / "00000.png", np.where(disc(0), 2, 255).astype(np.uint8)
    )  # undecided pixels are no object
    assert evaluate(pred, truth, SPARSE).metrics["J_mean"] == 1


def test_soft_predictions_are_cut_and_said_to_be(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3}, shift=0)
    for path in (pred / "a").iterdir():
        save(path, np.where(disc(int(path.stem)), 128, 60).astype(np.uint8))
    result = evaluate(pred, truth, ALL)
    assert result.metrics["J_mean"] == 1
    assert any("never thresholded" in note for note in result.notes)
    assert evaluate(pred, truth, replace(RELEASE, stretch=False)).metrics["J_mean"] == 0
    assert evaluate(pred, truth, RELEASE).metrics["J_mean"] == 1


def test_palette_converted_to_grey_is_pointed_out(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3}, shift=0)
    for path in (pred / "a").iterdir():
        save(path, np.where(disc(int(path.stem)), 38, 0).astype(np.uint8))
    notes = evaluate(pred, truth, ALL).notes
    assert any("palette masks that were converted to grey" in note for note in notes)


def test_compressed_annotations_are_pointed_out(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3}, shift=0)
    for path in list((truth / "a").iterdir()):
        levels = 255 * disc(int(path.stem)) + np.arange(30) // 3 * ~disc(int(path.stem)) * 4
        save(path, (levels + np.arange(20)[:, None] % 4).clip(0, 255).astype(np.uint8))
    notes = evaluate(pred, truth, ALL).notes
    assert any("3 of 3 annotations hold more levels" in note for note in notes)


def test_inverted_predictions_are_pointed_out(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3}, shift=0)
    for path in (pred / "a").iterdir():
        save(path, ~disc(int(path.stem)))
    for protocol in (ALL, MAP_PROTOCOLS["vsod"]):
        assert any("inverted" in note for note in evaluate(pred, truth, protocol).notes), protocol.name


def test_thresholded_maps_are_pointed_out(tmp_path):
    trees = make_trees(tmp_path, {"a": 3})
    assert any("thresholded already" in note for note in evaluate(*trees, MAP_PROTOCOLS["vsod"]).notes)


def test_a_protocol_may_leave_out_empty_annotations(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 4}, shift=0)
    save(truth / "a" / "00001.png", np.zeros((20, 30), bool))
    assert evaluate(pred, truth, SPARSE).metrics["J_mean"] == pytest.approx(3 / 4)
    result = evaluate(pred, truth, MASK_PROTOCOLS["fbms-nonempty"])
    assert result.metrics["J_mean"] == 1
    assert result.left_out == {"with an empty annotation": 1}


def test_classes_are_named_by_their_letters(tmp_path):
    pred, truth = make_trees(tmp_path, {"aeroplane_0001": 2, "aeroplane_0002": 2, "cat0001": 2}, shift=0)
    for path in (pred / "cat0001").iterdir():
        save(path, np.zeros((20, 30), bool))
    result = evaluate(pred, truth, MASK_PROTOCOLS["ytobj"])
    assert result.classes == {
        "aeroplane": {"J_mean": 1.0, "F_mean": 1.0},
        "cat": {"J_mean": 0.0, "F_mean": 0.0},
    }
    assert result.metrics["J_mean"] == pytest.approx(2 / 3), "the headline is the mean over sequences"


@pytest.mark.parametrize("protocol", [DAVIS, MAP_PROTOCOLS["vsod"]], ids=lambda protocol: protocol.name)
def test_too_short_a_sequence_is_an_error(tmp_path, protocol):
    trees = make_trees(tmp_path, {"a": 2, "b": 3})
    with pytest.raises(EvaluationError, match="a: 2 annotated frames leave none"):
        evaluate(*trees, protocol)


def test_averaging_orders_differ_as_stated(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("a", 5), ("b", 3)):
        for index in range(count):
            truth = disc(index)
            noise = rng.normal(0, 30 + 20 * index, truth.shape)
            prob = np.clip(90 + 80 * truth + noise, 0, 255).astype(np.uint8)
            save(tmp_path / "gt" / name / f"{index}.png", truth)
            save(tmp_path / "pred" / name / f"{index}.png", prob)
    results = {
        name: evaluate(tmp_path / "pred", tmp_path / "gt", replace(MAP_PROTOCOLS[name], drop_ends=False))
        for name in ("vsod", "vsod-pooled", "vsod-video-maxima", "vsod-mean-pr")
    }
    a, b = (results["vsod"].sequences[name] for name in "ab")
    expected = {
        "vsod": ((a.curves["f"] + b.curves["f"]) / 2).max(),
        "vsod-pooled": ((5 * a.curves["f"] + 3 * b.curves["f"]) / 8).max(),
        "vsod-video-maxima": (a.curves["f"].max() + b.curves["f"].max()) / 2,
    }
    for name, value in expected.items():
        assert results[name].metrics["max_F"] == pytest.approx(value), name
    precision, recall = ((a.curves[key] + b.curves[key]) / 2 for key in ("precision", "recall"))
    assert results["vsod-mean-pr"].metrics["max_F"] == pytest.approx(
        (1.3 * precision * recall / (0.3 * precision + recall + 1e-12)).max()
    )
    assert len({round(result.metrics["max_F"], 6) for result in results.values()}) == 4
