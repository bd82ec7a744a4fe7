"""tools/infer.py and scripts/infer.sh as users type them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from small_model import save_small_checkpoint

from hmhi.commands import segment
from hmhi.inference import rendered
from hmhi.media import video_out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt")


@pytest.fixture
def infer(checkpoint, capsys):
    """The command in this process, as starting it anew for each test takes seconds."""

    def run(*arguments, ok=True):
        words = ["--checkpoint", str(checkpoint), *map(str, arguments)]
        code = segment.main(words)
        said = capsys.readouterr()
        assert (code == 0) == ok, said.err
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


@pytest.fixture
def infer_outside(repository, checkpoint):
    def run(*arguments, ok=True, start=(sys.executable,), **environment):
        command = [*start, str(repository / "tools" / "infer.py"), "--checkpoint", str(checkpoint)]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert (done.returncode == 0) == ok, done.stderr
        return done

    return run


def write_frames(folder, count=3):
    folder.mkdir(parents=True)
    for t in range(count):
        frame = np.random.default_rng(t).integers(0, 255, (40, 61, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"{t:05d}.jpg")
    return folder


def write_video(path, count=4):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
    for t in range(count):
        writer.write(np.full((48, 64, 3), 60 * t % 256, dtype=np.uint8))
    writer.release()
    return path


def record_of(output):
    return json.loads((output / "infer.json").read_text())


def test_folder_of_sequences_without_truth(infer, tmp_path, caplog):
    for name in ("first clip", "second"):
        write_frames(tmp_path / "in" / name)
    infer("--input", tmp_path / "in", "--output", tmp_path / "out", "--save-prob", "--overlay")
    assert "unlike that of training" not in caplog.text
    for name in ("first clip", "second"):
        masks = sorted((tmp_path / "out" / "masks" / name).iterdir())
        assert [path.name for path in masks] == ["00000.png", "00001.png", "00002.png"]
        assert Image.open(masks[0]).size == (61, 40)
        assert (tmp_path / "out" / "prob" / name / "00000.png").is_file()
        assert (tmp_path / "out" / "overlay" / f"{name}.mp4").is_file()
    record = record_of(tmp_path / "out")
    assert record["flow"] == "dis"
    assert record["gt"] is None
    assert [(entry["name"], entry["frames"]) for entry in record["sequences"]] == [
        ("first clip", 3),
        ("second", 3),
    ]


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
    done = infer("--input", tmp_path / "in", "--output", tmp_path / "out", "--memory-frames", 2, ok=False)
    assert done.returncode == 2
    assert "another memory_frames" in done.stderr and "--overwrite" in done.stderr
    infer("--input", tmp_path / "in", "--output", tmp_path / "out", "--memory-frames", 2, "--overwrite")
    assert mask.stat().st_mtime_ns > stamp


def test_flow_unlike_that_of_training(infer, tmp_path, checkpoint, caplog):
    import torch

    trained = {"ytvos": {"method": "raft", "direction": "forward"}}
    torch.save({**torch.load(checkpoint, weights_only=True), "flow": trained}, tmp_path / "raft.pt")
    frames = write_frames(tmp_path / "in", 1)
    infer("--input", frames, "--output", tmp_path / "out", "--checkpoint", tmp_path / "raft.pt")
    (line,) = (line for line in caplog.messages if "unlike that of training" in line)
    assert "dis, forward" in line and "instead of raft, forward" in line


def test_every_option_on_a_video_file(infer, tmp_path):
    path = write_video(tmp_path / "clip.mp4", 9)
    out = tmp_path / "out"
    infer(
        "--input", path, "--output", out, "--save-prob", "--overlay", "--matte", "--strip", "--coco",
        "--start", "1", "--end", "0.7s", "--every", 3, "--short-side", 32, "--precision", "bf16", "--scene-cuts",
        "--flow", "dis", "--memory-frames", 2, "--device", "cpu", "infer.threshold=0.6",
    )  # fmt: skip
    names = ["00001.png", "00004.png", "00007.png"]
    for kind in ("masks", "prob", "matte"):
        assert sorted(path.name for path in (out / kind / "clip").iterdir()) == names
    capture = cv2.VideoCapture(str(out / "overlay" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(4.0)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    capture.release()
    assert Image.open(out / "strip" / "clip.png").size == (3 * 320, 240)
    track = json.loads((out / "coco" / "clip.json").read_text())
    assert track["videos"][0]["file_names"] == ["clip/00001", "clip/00004", "clip/00007"]
    record = record_of(out)
    assert (record["every"], record["short_side"], record["precision"]) == (3, 32, "bf16")
    assert record["sequences"][0]["size"] == [48, 64]


def test_a_pattern_and_a_failure(infer, tmp_path):
    write_video(tmp_path / "a.mp4", 2)
    (tmp_path / "b.mp4").write_bytes(b"not a video")
    done = infer("--input", tmp_path / "*.mp4", "--output", tmp_path / "out", ok=False)
    assert done.returncode == 2
    first, last = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "b.mp4" in first
    assert last == "error: 1 of 2 failed: b"
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["a"]


def test_a_data_set_by_name(infer, tmp_path):
    for part in ("Images", "Flows", "Annotations"):
        write_frames(tmp_path / "sets" / "DAVIS-16" / part / "val" / "a", 2)
    options = ["--sequences", "a", f"data.root={tmp_path / 'sets'}"]
    done = infer("--input", "davis16", "--output", tmp_path / "out", *options)
    record = record_of(tmp_path / "out")
    assert record["dataset"] == "davis16"
    assert record["flow"] == str(tmp_path / "sets" / "DAVIS-16" / "Flows" / "val")
    assert "tools/val_zvos.py" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere", "--output", "out"], "input not found: nowhere"),
        (["--input", "in", "--output", "out", "--flow", "nowhere"], "flow folder not found: nowhere"),
        (["--input", "in", "--output", "out", "infer.thresholdd=1"], "infer.thresholdd"),
        (["--input", "in", "--output", "out", "--checkpoint", "in/a/00000.jpg"], "00000.jpg"),
        (["--input", "in", "--output", "out", "infer.flow=raft"], "raft_large"),
        (["--input", "in", "--output", "out", "--flow", "raft"], "raft_large"),
        (
            ["--input", "in", "--output", "out", "--flow", "gmflow", "infer.flow_weights=nowhere.pkl"],
            "no GMFlow weights at nowhere.pkl",
        ),
        (["--input", "in", "--output", "in/out"], "inside the input"),
        (["--input", "in", "--output", "out", "--every", "0"], "every must be 1 or more"),
        (["--input", "in", "--output", "out", "--start", "1", "--end", "x"], "end must be a frame number"),
        (["--input", "in", "--output", "out", "--image-size", "64", "--short-side", "64"], "not both"),
        (["--input", "in", "--output", "out", "--start", "9"], "there is no frame from 9"),
        (["--input", "davis16", "--output", "out"], "docs/DATA.md"),
        (["--input", "in", "--output", "out", "--device", "banana"], "unknown device 'banana'"),
        (["--input", "in", "--output", "out", "--device", "meta"], "device meta is not there"),
        (["--input", f"camera:{10**30}", "--output", "out"], "called by its number"),
        (["--input", "in", "--output", "loop"], "loop"),
        (["--input", "in/*", "--output", "in/a/out"], "inside the input"),
        (["--input", "in/cut", "--output", "out"], "00001.jpg"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(infer, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write_frames(tmp_path / "in" / "a")
    Path("loop").symlink_to("loop")
    if "in/cut" in arguments:
        broken = write_frames(tmp_path / "in" / "cut") / "00001.jpg"
        broken.write_bytes(broken.read_bytes()[:300])
    done = infer(*arguments, ok=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert not list(tmp_path.rglob("masks/*"))


def test_a_mistake_shows_no_traceback(infer_outside, tmp_path):
    done = infer_outside("--input", tmp_path / "nowhere", "--output", tmp_path / "out", ok=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: input not found")


def test_ctrl_c_leaves_nothing_half_written(repository, checkpoint, tmp_path):
    write_frames(tmp_path / "in" / "a", 1)
    write_frames(tmp_path / "in" / "b", 2000)
    command = [
        sys.executable, repository / "tools" / "infer.py", "--checkpoint", checkpoint,
        "--input", tmp_path / "in", "--output", tmp_path / "out", "--overlay",
    ]  # fmt: skip
    # --overlay: the encoder is a process of its own
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    growing = tmp_path / "out" / ".partial" / "b" / "masks"
    while process.poll() is None and not (growing.is_dir() and any(growing.iterdir())):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "interrupted" in messages and "continues" in messages and "Traceback" not in messages
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == [".lock", "infer.json", "masks/a/00000.png", "overlay/a.mp4", "sequences/a.json"]
    assert [entry["name"] for entry in record_of(tmp_path / "out")["sequences"]] == ["a"]


def test_two_runs_into_one_folder(infer, repository, checkpoint, tmp_path):
    """Once, the second one removed frames of the first, whose rest then passed for finished."""
    write_frames(tmp_path / "in" / "long", 2000)
    write_frames(tmp_path / "in" / "short", 2)
    out = tmp_path / "out"
    command = [
        sys.executable, repository / "tools" / "infer.py", "--checkpoint", checkpoint,
        "--input", tmp_path / "in" / "long", "--output", out,
    ]  # fmt: skip
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    growing = out / ".partial" / "long" / "masks"
    while process.poll() is None and not (growing.is_dir() and any(growing.iterdir())):
        time.sleep(0.05)
    try:
        for name in ("long", "short"):
            done = infer("--input", tmp_path / "in" / name, "--output", out, ok=False)
            assert done.returncode == 2
            assert f"{out} is in use by process {process.pid}" in done.stderr
        assert process.poll() is None and any(growing.iterdir())
    finally:
        process.kill()
        process.wait()
    infer("--input", tmp_path / "in" / "short", "--output", out)  # the lock of the dead is none
    assert not (out / ".partial").exists()
    assert [path.name for path in (out / "masks").iterdir()] == ["short"]


def torchrun(processes):
    module = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return {
        "start": [*module, "--nproc-per-node", str(processes)],
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.mark.slow
def test_two_processes(infer_outside, tmp_path):
    for name, count in (("a", 1), ("b", 4), ("c", 2)):
        write_frames(tmp_path / "in" / name, count)
    done = infer_outside("--input", tmp_path / "in", "--output", tmp_path / "out", **torchrun(2))
    assert "3 sequences" in done.stdout
    frames = [(entry["name"], entry["frames"]) for entry in record_of(tmp_path / "out")["sequences"]]
    assert frames == [("a", 1), ("b", 4), ("c", 2)]
    done = infer_outside(
        "--input", tmp_path / "in", "--output", tmp_path / "out", "--every", 2, **torchrun(2), ok=False
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "another every" in said[0]


def test_without_ffmpeg(infer, tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4")
    for module in (segment, rendered, video_out):
        monkeypatch.setattr(module, "ffmpeg", lambda: None)
    for module in (segment, rendered):
        monkeypatch.setattr(module, "has_av", lambda: False)
    monkeypatch.setattr(video_out, "_has_h264", lambda: False)
    done = infer("--input", path, "--output", tmp_path / "out", "--overlay")
    assert "without ffmpeg" in done.stderr
    assert (tmp_path / "out" / "overlay" / "clip.mp4").is_file()


def test_the_script_from_elsewhere_with_spaces(repository, checkpoint, tmp_path):
    write_frames(tmp_path / "my videos" / "a b")
    done = subprocess.run(
        ["bash", str(repository / "scripts" / "infer.sh"), "my videos", "my results", "--checkpoint", checkpoint],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "my results" / "masks" / "a b").iterdir())) == 3
