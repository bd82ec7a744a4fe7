"""tools/train.py, scripts/train.sh and scripts/finetune.sh as users type them."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hmhi.commands.train import main
from hmhi.config import config_from_dict, load_config

CONFIG = """
model: {backbone: mit_b0, flow_adapters: false, memory_stages: [2], memory_frames: 2, ffn_channels: 16,
        decoder_channels: 8, high_to_shallow: none, shallow_to_high: none}
data: {train: [synthetic], val: [synthetic], image_size: [64, 64], clip_frames: 2, workers: 0,
       synthetic: {videos: 4, val_videos: 2, val_frames: 3, size: [64, 64]}}
train: {epochs: 1, batch_size: 2, log_every: 1, output: RUN}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("RUN", str(tmp_path / "run")))
    return path


@pytest.fixture
def environment() -> dict[str, str]:
    hidden = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "NPROC", "NNODES", "LOAD_FROM"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def run(
    command: list[Any], environment: dict[str, str], **options: Any
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        **options,
    )


def train_command(repository: Path, config: Path, *more: str) -> list[Any]:
    return [sys.executable, repository / "tools" / "train.py", "--config", config, *more]


def steps(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [record["step"] for record in map(json.loads, lines) if "train/loss" in record]


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_train_then_continue(repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]):
    done = run(train_command(repository, config), environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "validation on synthetic: J" in done.stderr and "%|" not in done.stderr
    )  # no bar without a terminal
    assert steps(tmp_path / "run") == [1, 2]
    best = torch.load(tmp_path / "run" / "ckpt" / "best.pt", weights_only=True)
    assert best["format"] == "hmhi-1" and best["scores"]["synthetic"]["JF"] >= 0

    # Overrides and options may mix.
    done = run(
        train_command(repository, config, "train.epochs=2", "--resume", "auto", "infer.threshold=0.4"),
        environment,
    )
    assert done.returncode == 0, done.stderr
    assert "continuing from" in done.stderr
    assert steps(tmp_path / "run") == [1, 2, 3, 4]


def test_dry_run_tells_all_and_writes_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = [
        "--config",
        str(config),
        "--dry-run",
        "--processes",
        "2",
        "train.steps=3",
        "train.lr_encoder=0.1",
    ]
    assert main([*words, "train.batch_size=1"]) == 0
    out = capsys.readouterr().out
    assert load_config(config, [*words[5:], "train.batch_size=1"]) == (
        config_from_dict(yaml.safe_load(out.partition("\n\n")[0]))
    )
    assert "first batch: image (1, 2, 3, 64, 64)" in out
    assert re.findall(r"peak learning rate (\S+), weight decay", out) == ["6e-05", "6e-06"]
    assert "steps: 2 epochs of 2, 3 in all; a step is 2 clips = 1 x 2 processes x 1 passes" in out
    assert re.search(r"estimated: \d+ MiB at the peak", out)
    assert list(tmp_path.iterdir()) == [config]
    with pytest.raises(SystemExit):
        main([*words, "--processes", "0"])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["data.train=[davis16]", "data.root=nowhere"], ["nowhere", "docs/DATA.md"]),
        (["data.train=[davis16]", "data.root=nowhere", "--check"], ["nowhere", "docs/DATA.md"]),
        (["data.train=[davis61]"], ["davis61", "davis16"]),
        (["data.clip_frames=1"], ["data.clip_frames"]),
        (["train.lrr=1"], ["lrr", "'lr'"]),
        (["--load-from", "absent.pt"], ["train.load_from", "absent.pt"]),
        (["train.pretrained=absent.pth"], ["train.pretrained", "absent.pth", "docs/TRAINING.md"]),
        (["--resume", "absent.pt"], ["absent.pt"]),
    ],
)
def test_user_errors_are_one_message_and_exit_2(
    repository: Path,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    expected: list[str],
):
    command = [str(part) for part in train_command(repository, config, *more)]
    monkeypatch.setattr(sys, "argv", command[1:])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(command[1], run_name="__main__")
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert errors.startswith("error: ") and "Traceback" not in errors
    assert all(text in errors for text in expected), errors
    assert not (tmp_path / "run" / "ckpt").exists()


def test_finetune_without_a_pretrained_model_says_what_to_do(
    tmp_path: Path, repository: Path, environment: dict[str, str]
):
    copy = copy_of(repository, tmp_path)
    done = run(["bash", copy / "scripts" / "finetune.sh"], environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "scripts/train.sh" in done.stderr and "LOAD_FROM" in done.stderr
    done = run(
        ["bash", copy / "scripts" / "finetune.sh"], {**environment, "LOAD_FROM": "gone.pt"}, cwd=tmp_path
    )
    assert done.returncode == 2 and "gone.pt is not a file" in done.stderr


def test_shell_scripts_are_sound(repository: Path):
    scripts = [repository / "scripts" / name for name in ("train.sh", "finetune.sh")]
    for script in scripts:
        assert run(["bash", "-n", script], dict(os.environ)).returncode == 0
    if shutil.which("shellcheck"):
        done = run(["shellcheck", "-x", *scripts], dict(os.environ), cwd=repository)
        assert done.returncode == 0, done.stdout


def copy_of(repository: Path, tmp_path: Path) -> Path:
    """The parts of the repository that the scripts use, below a path with spaces."""
    copy = tmp_path / "a copy of it"
    for part in ("scripts", "tools", "configs"):
        shutil.copytree(repository / part, copy / part)
    return copy


@pytest.mark.slow
def test_scripts_from_elsewhere_with_spaces(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    copy = copy_of(repository, tmp_path)
    done = run(
        ["bash", copy / "scripts" / "train.sh", "tiny.yaml", "train.output=runs/pretrain_x"],
        environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (copy / "runs" / "pretrain_x" / "ckpt" / "best.pt").is_file()
    done = run(["bash", copy / "scripts" / "finetune.sh", "tiny.yaml"], environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"weights from {copy / 'runs' / 'pretrain_x' / 'ckpt' / 'best.pt'}" in done.stderr
    assert (tmp_path / "run" / "ckpt" / "best.pt").is_file()


@pytest.mark.slow
def test_two_processes_by_script(repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]):
    command = ["bash", repository / "scripts" / "train.sh", config, "train.batch_size=1"]
    done = run(command, {**environment, "NPROC": "2"})
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stderr
    assert steps(tmp_path / "run") == [1, 2]


@pytest.mark.slow
def test_missing_data_is_said_once_before_two_processes_start(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    command = [
        "bash",
        repository / "scripts" / "train.sh",
        config,
        "data.train=[davis16]",
        "data.root=nowhere",
    ]
    done = run(command, {**environment, "NPROC": "2"}, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_the_process_group_saves_and_exits_143(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str], workers: int
):
    command = train_command(
        repository, config, "train.epochs=1000", "train.val_every=0", f"data.workers={workers}"
    )
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(steps(tmp_path / "run")) >= 3, process)
    os.killpg(process.pid, signal.SIGTERM)  # as a cluster's scheduler does it: loader processes get it too
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, errors
    saved = torch.load(tmp_path / "run" / "ckpt" / "last.pt", weights_only=True)
    assert saved["training"]["progress"]["step"] == steps(tmp_path / "run")[-1]


@pytest.mark.slow
def test_sigterm_to_two_processes_by_script_saves_and_exits_143(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    options = ["train.batch_size=1", "train.epochs=1000", "train.val_every=0", "data.workers=1"]
    command = ["bash", repository / "scripts" / "train.sh", config, *options]
    process = subprocess.Popen(
        list(map(str, command)), env={**environment, "NPROC": "2"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(steps(tmp_path / "run")) >= 3, process)
    process.terminate()  # the script has become the launcher
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    saved = torch.load(tmp_path / "run" / "ckpt" / "last.pt", weights_only=True)
    assert saved["training"]["progress"]["step"] == steps(tmp_path / "run")[-1]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nothing of it is left


@pytest.mark.slow
def test_kill_9_and_resume_equal_the_straight_run(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    options = ["train.epochs=3", "train.val_every=0"]
    straight = train_command(repository, config, *options, f"train.output={tmp_path / 'straight'}")
    assert run(straight, environment).returncode == 0
    command = train_command(repository, config, *options)
    process = subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "run" / "ckpt" / "last.pt").exists, process)
    process.kill()
    process.communicate()
    done = run([*command, "--resume", "auto"], environment)
    assert done.returncode == 0, done.stderr
    one, other = (
        torch.load(tmp_path / name / "ckpt" / "last.pt", weights_only=True) for name in ("straight", "run")
    )
    assert one["training"]["progress"] == other["training"]["progress"]
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
