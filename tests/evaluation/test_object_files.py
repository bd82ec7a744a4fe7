"""The protocols for several objects, with the traps that known toolkits leave open."""

import json

import numpy as np
import pytest
from mask_trees import SIZE, save, save_palette
from PIL import Image

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.files import EvaluationError
from hmhi.evaluation.objects import score_objects, split_labels
from hmhi.evaluation.region import jaccard
from hmhi.evaluation.report import format_results, result_to_dict, write_csv_report
from hmhi.evaluation.runner import evaluate
from hmhi.media.masks import write_labels


def labels(*boxes: tuple[int, int]) -> np.ndarray:
    """Object i + 1 is a square at column and size of box i."""
    ids = np.zeros(SIZE, np.uint8)
    for number, (left, side) in enumerate(boxes):
        ids[2 : 2 + side, left : left + side] = number + 1
    return ids


@pytest.fixture
def roots(tmp_path):
    """Sequence a with one perfect object, b with two: one perfect, one missed."""
    for t in range(5):
        save_palette(tmp_path / "gt/a" / f"{t}.png", labels((2, 6)))
        save_palette(tmp_path / "pred/a" / f"{t}.png", labels((2, 6)))
        save_palette(tmp_path / "gt/b" / f"{t}.png", labels((2, 6), (15, 8)))
        save_palette(tmp_path / "pred/b" / f"{t}.png", labels((2, 6)))
    return tmp_path / "pred", tmp_path / "gt"


def test_means_are_over_objects_not_over_sequences(roots):
    result = evaluate(*roots, "davis17")
    assert {name: row["J_mean"] for name, row in result.objects.items()} == {"a/1": 1, "b/1": 1, "b/2": 0}
    assert result.metrics["J_mean"] == result.metrics["F_mean"] == pytest.approx(2 / 3)  # .75 over sequences
    assert result.sequences["b"].metrics["J_mean"] == 0.5
    assert list(result.sequences["a"].frames) == ["1", "2", "3"]
    assert any("2 sequences scored" in note and "30" in note for note in result.notes)


def test_every_object_in_every_frame(roots):
    """Moving objects, checked against the metrics themselves."""
    pred, gt = roots
    for t in range(5):
        save_palette(pred / "b" / f"{t}.png", labels((3, 6), (15 + t, 8)))
    result = evaluate(pred, gt, "davis17", sequences=["b"])
    expected = [
        score_objects(
            split_labels(labels((3, 6), (15 + t, 8)), (1, 2)), split_labels(labels((2, 6), (15, 8)), (1, 2))
        )
        for t in (1, 2, 3)
    ]
    for column, key in enumerate(("b/1", "b/2")):
        values = np.stack(expected)[:, column]
        assert result.objects[key]["J_mean"] == pytest.approx(values[:, 0].mean())
        assert result.objects[key]["F_mean"] == pytest.approx(values[:, 1].mean())
        assert result.objects[key]["J_recall"] == (values[:, 0] > 0.5).mean()


def test_objects_are_those_of_the_first_annotation(roots):
    """An id that the truth shows later only does not count; a largest id of 3 makes three objects."""
    pred, gt = roots
    first = labels((2, 6))
    first[15:18, 25:28] = 3
    for t in range(5):
        save_palette(gt / "a" / f"{t}.png", first if t == 0 else labels((2, 6)))
    result = evaluate(pred, gt, "davis17", sequences=["a"])
    assert list(result.objects) == ["a/1", "a/2", "a/3"]
    assert result.objects["a/2"]["J_mean"] == 1  # empty in both: right


def test_late_objects_count_from_their_first_annotation(roots):
    pred, gt = roots
    for t in range(5):
        save_palette(gt / "a" / f"{t}.png", labels((2, 6)) if t < 3 else labels((2, 6), (15, 8)))
    result = evaluate(pred, gt, "svos-all-frames", sequences=["a"])
    assert result.objects["a/1"]["J_mean"] == 1
    assert result.objects["a/2"]["J_mean"] == 0
    assert result.frames_scored == 5


def test_undecided_pixels_are_background(roots):
    pred, gt = roots
    truth = labels((2, 6))
    truth[10:14] = 255
    for t in range(5):
        write_labels(gt / "a" / f"{t}.png", truth)
    assert evaluate(pred, gt, "davis17", sequences=["a"]).metrics["J_mean"] == 1
    covered = labels((2, 6))
    covered[10:14] = 1
    save_palette(pred / "a" / "2.png", covered)
    j = evaluate(pred, gt, "davis17", sequences=["a"]).sequences["a"].frames["2"].metrics["J"]
    assert j == jaccard(covered == 1, labels((2, 6)) == 1) < 1


@pytest.mark.parametrize("kind", ["renumbered", "grey", "colours", "size", "missing"])
def test_what_scores_zero_elsewhere_is_an_error_here(roots, kind):
    pred, gt = roots
    path, ids = pred / "b" / "2.png", labels((2, 6), (15, 8))
    if kind == "renumbered":
        save(path, ids * np.uint8(7))
        words = "holds id 7, 14, but the sequence has the objects 1, 2"
    elif kind == "grey":  # convert("L") of a palette mask
        save(path, np.array([0, 38, 75], np.uint8)[ids])
        words = "holds id 38, 75"
    elif kind == "colours":
        Image.fromarray(np.array([[0, 0, 0], [1, 2, 3], [4, 5, 6]], np.uint8)[ids]).save(path)
        words = "2.png"
    elif kind == "size":
        save_palette(path, ids[::2, ::2])
        words = "15x10 pixels"
    else:
        path.unlink()
        words = "1 of 3 predictions missing: 2"
    with pytest.raises(EvaluationError, match=words):
        evaluate(pred, gt, "davis17")


def test_masks_as_pictures_in_the_palette_s_colours_are_read(roots):
    pred, gt = roots
    for path in pred.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert evaluate(pred, gt, "davis17").metrics["J_mean"] == pytest.approx(2 / 3)


def test_missing_frames_score_zero_where_asked(roots):
    pred, gt = roots
    (pred / "a" / "2.png").unlink()
    result = evaluate(pred, gt, "davis17", missing="zero")
    assert result.objects["a/1"]["J_mean"] == pytest.approx(2 / 3)


def test_decay_beyond_256_frames(tmp_path):
    """The official toolkit keeps frame numbers in 8 bits."""
    for t in range(302):
        save_palette(tmp_path / "gt/a" / f"{t:05d}.png", labels((2, 6)))
        save_palette(tmp_path / "pred/a" / f"{t:05d}.png", labels((2, 6)) if t < 151 else labels())
    row = evaluate(tmp_path / "pred", tmp_path / "gt", "davis17").objects["a/1"]
    assert (row["J_mean"], row["J_decay"]) == (0.5, 1)


@pytest.fixture
def meta(tmp_path):
    objects = {
        "a": {"1": {"category": "ape", "frames": ["0", "1", "2", "3", "4"]}},
        "b": {"1": {"category": "cat", "frames": ["0", "2"]}, "2": {"category": "ape", "frames": ["2", "4"]}},
    }
    videos = {name: {"objects": found} for name, found in objects.items()}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}))
    seen = {"videos": {"x": {"objects": {"5": {"category": "ape", "frames": []}}}}}
    (tmp_path / "train.json").write_text(json.dumps(seen))
    return tmp_path / "meta.json", tmp_path / "train.json"


def test_youtube_vos_counts_the_listed_frames_after_the_first(roots, meta):
    pred, gt = roots
    (pred / "b" / "0.png").unlink()  # nothing is scored there
    (pred / "b" / "1.png").unlink()
    save_palette(pred / "b" / "4.png", labels((2, 6), (15, 8)))
    result = evaluate(pred, gt, "ytvos", meta=meta[0], seen=meta[1])
    assert {name: row["J_mean"] for name, row in result.objects.items()} == {"a/1": 1, "b/1": 1, "b/2": 1}
    assert list(result.sequences["b"].frames) == ["2", "4"]
    save_palette(pred / "b" / "2.png", labels())
    result = evaluate(pred, gt, "ytvos", meta=meta[0], seen=meta[1])
    four = [result.metrics[name] for name in ("J_seen", "J_unseen", "F_seen", "F_unseen")]
    assert four == [1, 0, 1, 0] and result.metrics["G"] == 0.5
    assert "G 0.5000" in format_results({"x": result})
    assert any("--seen" in note for note in evaluate(pred, gt, "ytvos", meta=meta[0]).notes)


@pytest.mark.parametrize("content", ["[]", "{", '{"videos": {"a": {"objects": {"x": {}}}}}'])
def test_damaged_lists_of_objects(roots, tmp_path, content):
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ValueError, match=r"meta\.json is no meta\.json of YouTube-VOS"):
        evaluate(*roots, "ytvos", meta=tmp_path / "meta.json")
    with pytest.raises(ValueError, match="needs --meta"):
        evaluate(*roots, "ytvos")


def test_reports_hold_the_objects(roots, tmp_path):
    result = evaluate(*roots, "davis17")
    assert result_to_dict(result)["objects"]["b/2"]["J_mean"] == 0
    write_csv_report({"x": result}, tmp_path / "x.csv")
    assert "x,davis17,object,b/2,," in (tmp_path / "x.csv").read_text()
    assert "mean of objects" in format_results({"x": result})
    assert f_measure(labels((2, 6)) == 1, labels((2, 6)) == 1) == 1
