import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mask_trees import disc, make_trees, save

from hmhi.evaluation.html_report import render
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS
from hmhi.evaluation.report import format_results, result_to_dict, write_csv_report, write_json_report
from hmhi.evaluation.runner import evaluate
from hmhi.evaluation.summary import Result

MASK_METRICS = ["J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay", "JF_mean"]
MAP_METRICS = ["MAE", "max_F", "mean_F", "adp_F", "max_E", "mean_E", "adp_E", "S", "wF"]


@pytest.fixture
def masks(tmp_path) -> Result:
    return evaluate(*make_trees(tmp_path, {"a": 5, "b": 4}), MASK_PROTOCOLS["davis16"])


@pytest.fixture
def maps(tmp_path) -> Result:
    return evaluate(*make_trees(tmp_path, {"a": 5, "b": 4}), MAP_PROTOCOLS["vsod"])


def test_json_of_masks(masks, tmp_path):
    write_json_report({"ours": masks}, tmp_path / "new" / "scores.json")
    values = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert values["protocol"] == "davis16"
    assert list(values["metrics"]) == MASK_METRICS
    assert list(values["sequences"]) == ["a", "b"]
    assert set(values["sequences"]["a"]) == {"J_mean", "F_mean", "frames"}
    assert set(values["sequences"]["a"]["frames"]) == {"00001", "00002", "00003"}
    assert set(values["sequences"]["a"]["frames"]["00001"]) == {"J", "F"}
    details = values["details"]
    assert (details["frames_scored"], details["sequences_scored"]) == (5, 2)
    assert details["frames_left_out"] == {"first and last of their sequence": 4}
    assert "127" in details["reading"]


def test_json_of_maps(maps):
    values = result_to_dict(maps)
    assert list(values["metrics"]) == MAP_METRICS
    assert all(list(scores) == MAP_METRICS for scores in values["sequences"].values())
    assert "NaN" not in json.dumps(values)


def test_json_of_several_methods(masks, tmp_path):
    write_json_report({"x": masks, "y": masks}, tmp_path / "scores.json")
    values = json.loads((tmp_path / "scores.json").read_text())
    assert set(values) == {"methods"}
    assert values["methods"]["y"] == json.loads(json.dumps(result_to_dict(masks)))


def test_classes_are_in_the_details(tmp_path):
    trees = make_trees(tmp_path, {"cat0001": 2, "cat0002": 2, "dog0001": 2})
    result = evaluate(*trees, MASK_PROTOCOLS["ytobj"])
    details = result_to_dict(result)["details"]
    assert set(details["classes"]) == {"cat", "dog"}
    mean = np.mean([scores["J_mean"] for scores in details["classes"].values()])
    assert details["class_means"]["J_mean"] == pytest.approx(mean)
    assert "mean of classes" in format_results({"x": result})
    assert "mean of classes" in render({"x": result})


@pytest.mark.parametrize("kind", ["masks", "maps"])
def test_csv_holds_every_level(kind, request, tmp_path):
    result = request.getfixturevalue(kind)
    write_csv_report({"ours": result}, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["level"] for row in rows] == ["dataset"] + ["sequence"] * 2 + ["frame"] * 5
    key = "J_mean" if kind == "masks" else "S"
    assert float(rows[0][key]) == result.metrics[key]
    assert float(rows[1][key]) == result.sequences["a"].metrics[key]
    frame = result.sequences["a"].frames["00001"].metrics
    assert {name: float(rows[3][name]) for name in frame} == pytest.approx(frame)


def test_terminal_table(masks, maps):
    text = format_results({"ours": masks})
    assert "davis16" in text and "J_recall" in text
    assert f"J&F {masks.metrics['JF_mean']:.4f}" in text
    assert "4 frames left out: first and last of their sequence" in text
    assert re.search(r"^a +0\.\d{4} ", text, re.MULTILINE)
    several = format_results({"one": maps, "two": maps})
    assert re.search(r"^two +0\.\d{4}", several, re.MULTILINE)
    assert "S of sequence" in several


class Page(HTMLParser):
    """Counts tags, and checks that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_html_of_masks(masks):
    page = Page(render({"one": masks, "two": masks}))
    assert page.count("polyline") == 2 * 2  # a line for each method in each sequence's chart
    assert page.count("img") == 2 * 5  # all five scored frames, each once
    assert not [attrs for _, attrs in page.tags if (attrs.get("src") or "data:").startswith("http")]


def test_html_of_maps(maps):
    page = Page(render({"ours": maps}))
    assert page.count("polyline") == 2 + 3  # S over time of two sequences; PR, F and E curves
    numbers = re.findall(r"-?\d+\.?\d*|nan", " ".join(a.get("points") or "" for _, a in page.tags))
    assert numbers and all(math.isfinite(float(number)) for number in numbers)


def test_html_escapes_hostile_names(tmp_path):
    name = "<script>alert(1)<!--"
    for kind in ("pred", "gt"):
        save(tmp_path / kind / name / "0.png", disc())
    result = evaluate(tmp_path / "pred", tmp_path / "gt", MASK_PROTOCOLS["all-frames"])
    text = render({"<b>method": result})
    assert "<script" not in text and "<b>method" not in text
    Page(text)


def test_html_shows_a_missing_prediction_and_another_size(tmp_path):
    pred, truth = make_trees(tmp_path, {"a": 3})
    (pred / "a" / "00000.png").unlink()
    save(pred / "a" / "00001.png", np.kron(disc(1), np.ones((2, 2), bool)))
    result = evaluate(pred, truth, MASK_PROTOCOLS["all-frames"], missing="zero", resize="nearest")
    assert "a/00000: J 0.000, F 0.000 (no prediction)" in render({"x": result})


def test_undecodable_names_can_be_written(tmp_path):
    name = "a\udcff"
    try:
        (tmp_path / "gt" / name).mkdir(parents=True)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system refuses such names")
    for kind in ("pred", "gt"):
        save(tmp_path / kind / name / "0.png", disc())
    results = {"x": evaluate(tmp_path / "pred", tmp_path / "gt", MASK_PROTOCOLS["all-frames"])}
    write_json_report(results, tmp_path / "x.json")
    write_csv_report(results, tmp_path / "x.csv")
    (tmp_path / "x.html").write_text(render(results), encoding="utf-8")
    format_results(results).encode("utf-8")
    assert all(Path(tmp_path / f"x.{form}").stat().st_size for form in ("json", "csv", "html"))
