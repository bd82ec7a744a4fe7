"""tools/make_flow.py as a user runs it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def run(repository):
    def run_tool(*arguments, **environment):
        command = [sys.executable, str(repository / "tools" / "make_flow.py"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | environment
        )

    return run_tool


@pytest.fixture
def frames(tmp_path):
    """Two sequences of a texture that moves 3 pixels to the right, in a folder with a space in its name."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 255, (20, 40, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    for name in ("first", "second"):
        folder = tmp_path / "my frames" / name
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(texture[:, 30 - 3 * i : 110 - 3 * i]).save(folder / f"{i:05d}.png")
    return tmp_path / "my frames"


def test_dis_then_resume(run, frames, tmp_path):
    output = tmp_path / "flow"
    done = run("--input", frames, "--output", output)
    assert done.returncode == 0, done.stderr
    maps = sorted(output.rglob("*.png"))
    assert [str(path.relative_to(output)) for path in maps] == [
        f"{name}/{i:05d}.png" for name in ("first", "second") for i in range(3)
    ]
    middle = np.asarray(Image.open(maps[0]))[30:50, 30:50].astype(int)
    red = middle[..., 0].mean() > 200 > 150 > middle[..., 1].mean()  # to the right is red on the wheel
    assert red
    assert json.loads((output / "manifest.json").read_text())["method"] == "dis"
    assert "6 of them from an earlier run" in run("--input", frames, "--output", output).stdout


def test_packs_are_read_as_they_are(run, frames, tmp_path):
    assert run("--input", frames, "--output", tmp_path / "from folders").returncode == 0
    packs = tmp_path / "packs"
    for name in ("first", "second"):
        shutil.make_archive(str(packs / name), "zip", frames / name)
    done = run("--input", packs, "--output", tmp_path / "from packs")
    assert done.returncode == 0, done.stderr
    maps = sorted((tmp_path / "from folders").rglob("*.png"))
    assert len(maps) == 6
    for path in maps:
        other = tmp_path / "from packs" / path.relative_to(tmp_path / "from folders")
        assert other.read_bytes() == path.read_bytes()


def test_ranks_share_the_work(run, frames, tmp_path):
    output = tmp_path / "flow"
    for rank in (0, 1):
        done = run("--input", frames, "--output", output, RANK=str(rank), WORLD_SIZE="2")
        assert done.returncode == 0, done.stderr
        assert "3 maps" in done.stdout
    assert len(list(output.rglob("*.png"))) == 6


def test_errors_are_one_line(run, frames, tmp_path):
    output = tmp_path / "flow"
    empty = run("--input", tmp_path / "nothing", "--output", output)
    weights = run("--input", frames, "--output", output, "--weights", "raft.pth")
    run("--input", frames, "--output", output)
    mixed = run("--input", frames, "--output", output, "--direction", "backward")
    none = run("--input", frames, "--output", output, "--batch-size", "0")
    expected = (
        (empty, "no frames"), (weights, "no weights"), (mixed, "another output folder"), (none, "at least 1"),
    )  # fmt: skip
    for done, words in expected:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("method", [pytest.param("raft-small", marks=pytest.mark.slow), "gmflow"])
def test_networks_from_a_weights_file(run, frames, tmp_path, method):
    import torch
    from torchvision.models.optical_flow import raft_small

    from hmhi.flow.gmflow_network import GMFlow

    torch.manual_seed(0)
    network = GMFlow() if method == "gmflow" else raft_small(weights=None)
    torch.save(network.state_dict(), tmp_path / "random.pth")
    output = tmp_path / "flow"
    arguments = ("--method", method, "--weights", tmp_path / "random.pth", "--last", "none")
    done = run(
        "--input", frames / "first", "--output", output, *arguments, "--format", "jpg", "--batch-size", "2"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in output.iterdir()) == ["00000.jpg", "00001.jpg", "manifest.json"]
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["method"] == method
    assert manifest["weights"] == "random.pth"
    assert len(manifest["weights_sha256"]) == 64
