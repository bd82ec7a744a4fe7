"""tools/infer.py and scripts/infer.sh as users type them."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from small_model import save_small_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt")


@pytest.fixture
def infer(repository, checkpoint):
    def run(*arguments, ok=True):
        command = [sys.executable, str(repository / "tools" / "infer.py"), "--checkpoint", str(checkpoint)]
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
        assert (done.returncode == 0) == ok, done.stderr
        return done

    return run


def write_frames(folder, count=3):
    folder.mkdir(parents=True)
    for t in range(count):
        frame = np.random.default_rng(t).integers(0, 255, (40, 61, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"{t:05d}.jpg")
    return folder


def test_folder_of_sequences_without_truth(infer, tmp_path):
    for name in ("first clip", "second"):
        write_frames(tmp_path / "in" / name)
    done = infer("--input", tmp_path / "in", "--output", tmp_path / "out", "--save-prob", "--overlay")
    assert "unlike that of training" not in done.stderr
    for name in ("first clip", "second"):
        masks = sorted((tmp_path / "out" / "masks" / name).iterdir())
        assert [path.name for path in masks] == ["00000.png", "00001.png", "00002.png"]
        assert Image.open(masks[0]).size == (61, 40)
        assert (tmp_path / "out" / "prob" / name / "00000.png").is_file()
        assert (tmp_path / "out" / "overlay" / f"{name}.mp4").is_file()
    record = json.loads((tmp_path / "out" / "infer.json").read_text())
    assert record["flow"] == "dis"
    assert record["gt"] is None


def test_finished_sequences_are_kept_and_settings_do_not_mix(infer, tmp_path):
    write_frames(tmp_path / "in" / "a")
    infer("--input", tmp_path / "in", "--output", tmp_path / "out")
    mask = tmp_path / "out" / "masks" / "a" / "00000.png"
    stamp = mask.stat().st_mtime_ns
    write_frames(tmp_path / "in" / "b")
    done = infer("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert "2 sequences" in done.stdout
    assert "1 of them from an earlier run" in done.stdout
    assert mask.stat().st_mtime_ns == stamp
    done = infer("--input", tmp_path / "in", "--output", tmp_path / "out", "model.memory_frames=2", ok=False)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    infer("--input", tmp_path / "in", "--output", tmp_path / "out", "model.memory_frames=2", "--overwrite")
    assert mask.stat().st_mtime_ns > stamp


def test_flow_unlike_that_of_training(infer, tmp_path, checkpoint):
    import torch

    trained = {"ytvos": {"method": "raft", "direction": "forward"}}
    torch.save({**torch.load(checkpoint, weights_only=True), "flow": trained}, tmp_path / "raft.pt")
    frames = write_frames(tmp_path / "in", 1)
    done = infer("--input", frames, "--output", tmp_path / "out", "--checkpoint", tmp_path / "raft.pt")
    (line,) = (line for line in done.stderr.splitlines() if "unlike that of training" in line)
    assert line.endswith("dis, forward instead of raft, forward (ytvos)")


def test_a_video_file(infer, tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
    for t in range(4):
        writer.write(np.full((48, 64, 3), 60 * t, dtype=np.uint8))
    writer.release()
    infer("--input", path, "--output", tmp_path / "out", "--overlay")
    assert len(list((tmp_path / "out" / "masks" / "clip").iterdir())) == 4
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlay" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.0)
    capture.release()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere", "--output", "out"], "input not found: nowhere"),
        (["--input", "in", "--output", "out", "--flow", "nowhere"], "flow folder not found: nowhere"),
        (["--input", "in", "--output", "out", "infer.thresholdd=1"], "infer.thresholdd"),
        (["--input", "in", "--output", "out", "--checkpoint", "in/a/00000.jpg"], "00000.jpg"),
        (["--input", "in", "--output", "out", "infer.flow=raft"], "raft_large"),
        (["--input", "in/cut", "--output", "out"], "00001.jpg"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(infer, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write_frames(tmp_path / "in" / "a")
    broken = write_frames(tmp_path / "in" / "cut") / "00001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    done = infer(*arguments, ok=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("masks/*"))


def test_the_script_from_elsewhere_with_spaces(repository, checkpoint, tmp_path):
    write_frames(tmp_path / "my videos" / "a b")
    done = subprocess.run(
        ["bash", str(repository / "scripts" / "infer.sh"), "my videos", "my results", "--checkpoint", checkpoint],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "my results" / "masks" / "a b").iterdir())) == 3
