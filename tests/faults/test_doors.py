"""Mutated files through every door: what cannot be read is a UserError, and nothing crashes or hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET = {"picture": 400, "mask": 300, "flow": 300, "archive": 300, "video": 200, "checkpoint": 120}
HERE = Path(__file__).resolve().parent


def fuzz(repository: Path, door: str, first: int, count: int) -> None:
    path = os.pathsep.join(map(str, (repository, HERE, HERE.parent / "training")))
    command = [sys.executable, HERE / "fuzz.py", door, str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("door", BUDGET)
def test_mutated_files(repository: Path, door: str) -> None:
    fuzz(repository, door, 0, BUDGET[door])
