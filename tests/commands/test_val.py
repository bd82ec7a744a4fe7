"""The scoring commands as a user runs them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def trees(tmp_path):
    for index in range(5):
        for kind, shift in (("pred", 1), ("better", 0), ("gt", 0)):
            mask = np.zeros((40, 60), np.uint8)
            mask[10:30, 10 + shift + index : 30 + shift + index] = 255
            path = tmp_path / kind / "clip" / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return tmp_path


@pytest.fixture
def call(repository, tmp_path):
    def run(tool, *arguments):
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, repository / "tools" / f"{tool}.py", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def test_masks(trees, call):
    forms = {form: trees / "reports" / f"scores.{form}" for form in ("json", "csv", "html")}
    options = [part for form, path in forms.items() for part in (f"--{form}", path)]
    done = call("val_zvos", "--pred", trees / "pred", "--gt", trees / "gt", *options, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "J&F" in done.stdout
    scores = json.loads(forms["json"].read_text())
    assert scores["protocol"] == "davis16"
    assert set(scores["sequences"]["clip"]["frames"]) == {"00001", "00002", "00003"}
    assert scores["metrics"]["J_mean"] == pytest.approx(19 / 21)
    assert all(path.stat().st_size for path in forms.values())


def test_maps(trees, call):
    arguments = [
        "--pred",
        trees / "pred",
        "--gt",
        trees / "gt",
        "--dataset",
        "visal",
        "--json",
        trees / "s.json",
    ]
    done = call("val_vsod", *arguments)
    assert done.returncode == 0, done.stderr
    scores = json.loads((trees / "s.json").read_text())
    assert scores["protocol"] == "visal"
    assert set(scores["metrics"]) == {
        "MAE",
        "max_F",
        "mean_F",
        "adp_F",
        "max_E",
        "mean_E",
        "adp_E",
        "S",
        "wF",
    }
    assert scores["metrics"]["MAE"] == pytest.approx(2 * 20 / (40 * 60))


def test_several_methods(trees, call):
    arguments = ["--pred", f"worse={trees / 'pred'}", "--pred", trees / "better", "--gt", trees / "gt"]
    done = call("val_zvos", *arguments, "--json", trees / "s.json")
    assert done.returncode == 0, done.stderr
    methods = json.loads((trees / "s.json").read_text())["methods"]
    assert set(methods) == {"worse", "better"}
    assert methods["better"]["metrics"]["JF_mean"] == 1 > methods["worse"]["metrics"]["JF_mean"]


@pytest.mark.parametrize("tool", ["val_zvos", "val_vsod"])
def test_protocols_can_be_listed(call, tool):
    done = call(tool, "--protocol", "list")
    assert done.returncode == 0
    assert "release" in done.stdout and "source:" in done.stdout


def test_problems_are_one_report_and_exit_code_2(trees, call):
    (trees / "pred" / "clip" / "00001.png").unlink()
    (trees / "pred" / "clip" / "00003.png").unlink()
    done = call("val_zvos", "--pred", trees / "pred", "--gt", trees / "gt")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "00001, 00003" in done.stderr
    assert done.stderr.startswith("error: ")


def write_output(root, name, **record):
    """An inference output as tools/infer.py leaves it."""
    output = root / "outputs" / name
    for kind in ("masks", "prob"):
        for path in (root / "pred" / "clip").iterdir():
            target = output / kind / "clip" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (output / "infer.json").write_text(json.dumps({"input": "x", "dataset": None, "gt": None, **record}))
    return output


def test_without_arguments_it_says_what_to_run_first(call):
    for tool in ("val_zvos", "val_vsod"):
        done = call(tool)
        assert done.returncode == 2
        assert "infer" in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_arguments_the_newest_output_is_scored(trees, call):
    older = write_output(trees, "older", gt="nowhere")
    os.utime(older / "infer.json", (1, 1))
    newest = write_output(trees, "newest", gt=str(trees / "gt"), dataset="synthetic")
    (trees / "gt" / "never_inferred").mkdir()
    (trees / "gt" / "never_inferred" / "0.png").write_bytes(
        (trees / "gt" / "clip" / "00000.png").read_bytes()
    )
    done = call("val_zvos", "--json", "scores.json")
    assert done.returncode == 0, done.stderr
    assert "newest" in done.stdout.splitlines()[0]
    scores = json.loads((trees / "scores.json").read_text())
    assert scores["protocol"] == "all-frames"
    assert set(scores["sequences"]) == {"clip"}
    assert call("val_vsod").returncode == 0

    record = {"input": "x", "dataset": "synthetic", "gt": str(trees / "gt" / "clip")}  # a single sequence
    (newest / "infer.json").write_text(json.dumps(record))
    again = call("val_zvos")
    assert again.stdout.splitlines()[1:] == [
        line for line in done.stdout.splitlines()[1:] if "written" not in line
    ]

    (newest / "infer.json").write_text(json.dumps({"input": "x", "dataset": None, "gt": None}))
    done = call("val_zvos")
    assert done.returncode == 2 and "--gt" in done.stderr
    assert call("val_zvos", "--gt", trees / "gt").returncode == 0
    (newest / "infer.json").write_text("{")
    done = call("val_zvos")
    assert done.returncode == 2 and "damaged" in done.stderr


def test_benchmark(call):
    done = call("benchmark", "eval", "--frames", "1", "--json", "speed.json")
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout
    assert call("benchmark", "nothing").returncode == 2
