"""tools/prepare_data.py and tools/check_data.py as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def run(repository):
    def run_tool(tool, *arguments):
        command = [sys.executable, str(repository / "tools" / tool), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=120)

    return run_tool


def save(path: Path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def published(tmp_path):
    """ViSal's layout in miniature, in a folder with a space and words of our own layout in its name."""
    source = tmp_path / "my frame Images"
    rng = np.random.default_rng(0)
    for t in range(4):
        save(source / f"ViSal/panda/panda_{t}.png", rng.integers(0, 256, (40, 64, 3), dtype=np.uint8))
    save(source / "GroundTruth/panda_0.png", np.full((40, 64), 255, np.uint8))
    return source


def test_prepare_then_check(run, published, tmp_path):
    root = tmp_path / "my data"
    done = run("prepare_data.py", "visal", "--source", published, "--root", root)
    assert done.returncode == 0, done.stderr
    assert "val: 1 videos, 4 frames, 1 masks" in done.stdout and "check_data.py visal" in done.stdout
    assert (root / "ViSal/Images/val/panda/panda_3.png").is_file()
    checked = run("check_data.py", "visal", "--root", root)
    assert checked.returncode == 2, checked.stdout  # flow is not made yet
    assert "no flow maps in" in checked.stdout and "fix: python tools/make_flow.py --input" in checked.stdout
    made = run("make_flow.py", "--input", root / "ViSal/Images/val", "--output", root / "ViSal/Flows/val")
    assert made.returncode == 0, made.stderr
    checked = run("check_data.py", "visal", "--root", root)
    assert checked.returncode == 0, checked.stdout
    assert "dis forward       ready" in checked.stdout and "finetune_davis16.yaml" in checked.stdout
    assert (
        run("check_data.py", "--root", root).returncode == 0
    )  # absent sets are no problem unless they are named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["visal", "--source", "nowhere"], "nowhere: no such file or folder"),
        (["visal", "--source", "."], "no folder called GroundTruth or Imgs. Expected: ViSal/<video>"),
    ],
)
def test_prepare_errors_are_one_line(run, tmp_path, arguments, message):
    arguments = [str(tmp_path) if part == "." else part for part in arguments]
    done = run("prepare_data.py", *arguments, "--root", tmp_path / "data")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and message in done.stderr


def test_check_errors(run, tmp_path):
    done = run("check_data.py", "davis-16", "--root", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(
        "error: unknown data set 'davis-16'; did you mean 'davis16'?"
    )
    done = run("check_data.py", "davis16", "--root", tmp_path)
    assert done.returncode == 2 and f"expected the folder {tmp_path / 'DAVIS-16'}" in done.stdout
    done = run("check_data.py", "--root", tmp_path)
    assert done.returncode == 2 and "no data set in" in done.stderr


@pytest.mark.slow
def test_benchmark(run, tmp_path):
    figures = tmp_path / "figures.json"
    done = run(
        "benchmark.py", "data", "--clips", 1, "--batches", 1, "--batch-size", 1, "--workers", 0, 1, "--size", 32, 64,
        "--step-seconds", 0.01, "--json", figures,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = json.loads(figures.read_text())
    assert values["stages"][-1]["stage"] == "whole clip" and values["stages"][-1]["clips_per_second"] > 0
    assert [row["workers"] for row in values["loader"]] == [0, 1]
    assert all(0 <= row["waiting"] <= 1 for row in values["loader"])
    missing = run("benchmark.py", "data", "--dataset", "davis16", "--root", tmp_path)
    assert missing.returncode == 2 and missing.stderr.startswith("error: data set 'davis16' not found")
