"""The run folder's records: rank 0 only, and without the steps that a killed run wrote too many."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hmhi.runtime.distributed import Ranks
from hmhi.training.logs import RunLogger, environment, text_log

CPU = torch.device("cpu")


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def board(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tb")).Reload()


class Service:
    """Takes values as wandb's run does, and is gone after two calls."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        self.told.append((step, data))
        if len(self.told) == 2:
            raise ConnectionError("gone")


def test_scalars_and_pictures_are_recorded_by_step(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    service = Service()
    logger = RunLogger(tmp_path, active=True, tracker=service)
    logger.scalars({"train/loss": 2.0, "train/lr": 0.1}, step=20, epoch=1)
    assert service.told == [(20, {"epoch": 1, "train/loss": 2.0, "train/lr": 0.1})]
    for step in (21, 22):  # a service that fails is left alone, and the run goes on
        logger.scalars({"train/loss": 1.0}, step=step, epoch=1)
    assert len(service.told) == 2 and caplog.text.count("no more scalars to Service") == 1
    logger.picture("val/davis16/bear", torch.zeros(3, 4, 16, dtype=torch.uint8), step=20)
    logger.close()
    assert records(tmp_path)[0] == {"step": 20, "epoch": 1, "train/loss": 2.0, "train/lr": 0.1}
    found = board(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(20, 2.0), (21, 1.0), (22, 1.0)]
    assert found.Tags()["images"] == ["val/davis16/bear"]


def test_resume_removes_what_lies_ahead(tmp_path: Path):
    killed = RunLogger(tmp_path, active=True)
    for step in (10, 20, 30):
        killed.scalars({"train/loss": float(step)}, step=step, epoch=0)
    killed.scalars({"val/davis16/J": 0.5}, step=20, epoch=0)
    killed.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "tra')  # killed while writing

    resumed = RunLogger(tmp_path, active=True, step=20)
    resumed.scalars({"train/loss": 31.0}, step=30, epoch=1)
    resumed.close()
    assert [(r["step"], r.get("train/loss")) for r in records(tmp_path)] == [
        (10, 10.0),
        (20, 20.0),
        (30, 31.0),
    ]
    assert [(e.step, e.value) for e in board(tmp_path).Scalars("train/loss")] == [
        (10, 10),
        (20, 20),
        (30, 31),
    ]


def test_other_ranks_write_nothing(tmp_path: Path):
    logger = RunLogger(tmp_path, active=False)
    logger.scalars({"train/loss": 2.0}, step=1, epoch=0)
    logger.picture("x", torch.zeros(3, 4, 4, dtype=torch.uint8), step=1)
    logger.close()
    with text_log(tmp_path, Ranks(1, 2, CPU)):
        logging.getLogger("hmhi.training").warning("careful")
    assert list(tmp_path.iterdir()) == []


def test_text_log_goes_to_stderr_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    logger = logging.getLogger("hmhi.training.train")
    with pytest.raises(ValueError, match="broken"), text_log(tmp_path, Ranks(0, 1, CPU)):
        logger.info("epoch 1")
        logger.debug("detail")
        raise ValueError("broken")
    logger.error("after the run")
    errors = capsys.readouterr().err
    assert "epoch 1" in errors and "detail" not in errors and "Traceback" not in errors
    written = (tmp_path / "train.log").read_text()
    assert "epoch 1" in written and "detail" in written and "Traceback" in written and "after" not in written


def test_environment_names_versions_and_revision():
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["git"]
    assert all(isinstance(value, str) for value in found.values())


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
import torch
from hmhi.runtime.distributed import Ranks
from hmhi.training.logs import RunLogger, text_log

folder = Path(sys.argv[1])
with text_log(folder, Ranks(0, 1, torch.device("cpu"))):
    logger = RunLogger(folder, active=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    for step in range(20):
        logging.getLogger("hmhi.training").info("this is step %d", step)
        logger.scalars({"train/loss": 1.0}, step=step, epoch=0)
    logger.close()
print("trained to the end")
"""


def test_a_full_disk_ends_the_records_and_not_the_run(tmp_path: Path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "trained to the end\n"), done.stderr
    assert "Logging error" not in done.stderr  # the thread of TensorBoard shows a traceback of its own
    assert done.stderr.count("no more log in") == done.stderr.count("no more records of this run") == 1
    assert "this is step 19" in done.stderr
