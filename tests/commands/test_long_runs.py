"""Several agents, restarts, and SLURM: what a run of days goes through."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_command import CONFIG, steps, wait_for
from test_train_command import environment as environment  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.replace("RUN", str(tmp_path / "run")))
    return path


def start(command: list[Any], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)


def saved_progress(run: Path) -> dict[str, int]:
    progress: dict[str, int] = torch.load(run / "ckpt" / "last.pt", weights_only=True)["training"]["progress"]
    return progress


def test_two_agents_train_as_two_machines_do(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = ["bash", repository / "scripts" / "train.sh", config, "train.batch_size=1"]
    machines = {"NNODES": "2", "NPROC": "1", "MASTER_PORT": port}
    agents = [start(command, {**environment, **machines, "NODE_RANK": rank}) for rank in "01"]
    errors = [agent.communicate(timeout=600)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    assert "on 2 x cpu" in errors[0] and "on 2 x cpu" not in errors[1]
    assert steps(tmp_path / "run") == [1, 2]


def rank_one(folder: Path) -> int:
    """Process id of rank 1 of the run that writes to `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and b"\0RANK=1\0" in variables:
            return int(process.name)
    raise AssertionError("rank 1 is not there")


def test_a_run_whose_process_is_killed_starts_again_by_itself(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    options = ["train.batch_size=1", "train.epochs=6", "train.val_every=0", "train.save_minutes=1e-9"]
    command = ["bash", repository / "scripts" / "train.sh", config, *options, "--resume", "auto"]
    process = start(command, {**environment, "NPROC": "2", "MAX_RESTARTS": "1"})
    wait_for((tmp_path / "run" / "ckpt" / "last.pt").exists, process, 300)
    os.kill(rank_one(config), signal.SIGKILL)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors
    assert "continuing from" in errors
    assert saved_progress(tmp_path / "run")["step"] == 12
    assert steps(tmp_path / "run") == list(range(1, 13))


def test_restarts_without_resume_are_refused(repository: Path, config: Path, environment: dict[str, str]):
    command = ["bash", repository / "scripts" / "train.sh", config]
    process = start(command, {**environment, "NPROC": "2", "MAX_RESTARTS": "1"})
    assert "--resume auto" in process.communicate(timeout=60)[1] and process.returncode == 2


SRUN = '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nSLURM_PROCID=0 exec "$@"\n'
SCONTROL = '#!/bin/bash\necho "$@" >> "$CALLS"\n[[ "$1" == show ]] && echo 127.0.0.1\nexit 0\n'


def test_a_preempted_job_saves_goes_back_to_the_queue_and_continues(
    repository: Path, config: Path, tmp_path: Path, environment: dict[str, str]
):
    """With stand-ins for srun and scontrol; SLURM runs a copy of the script, elsewhere."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = shutil.copy(repository / "scripts" / "slurm" / "pretrain.sbatch", tmp_path / "slurm_script")
    job = {
        **environment, "PATH": f"{tmp_path}:{environment['PATH']}", "CALLS": str(tmp_path / "calls"),
        "SLURM_SUBMIT_DIR": str(repository), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "node1", "NPROC": "1",
    }  # fmt: skip
    process = start(["bash", script, config, "train.epochs=1000", "train.val_every=0"], job)
    wait_for(lambda: len(steps(tmp_path / "run")) >= 3, process, 300)
    process.terminate()
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    assert (tmp_path / "calls").read_text().splitlines() == ["show hostnames node1", "requeue 7"]
    done = steps(tmp_path / "run")
    assert saved_progress(tmp_path / "run")["step"] == done[-1]

    process = start(["bash", script, config, f"train.epochs={len(done) // 2 + 2}", "train.val_every=0"], job)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0 and "continuing from" in errors, errors
    assert "requeue" not in (tmp_path / "calls").read_text().splitlines()[2:]
    assert steps(tmp_path / "run") == list(range(1, 2 * (len(done) // 2 + 2) + 1))
