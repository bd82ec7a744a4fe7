"""Running the steps of a plan."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CODE = """
import signal, sys
from pathlib import Path
from hmhi.reproduction.plan import Step, run_step
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where a shell ignores it
folder = Path(sys.argv[1])
shell = "trap 'sleep 1; touch saved; exit 0' INT; touch ready; while :; do sleep .05; done"
run_step(Step("train", ("bash", "-c", shell), folder), folder)
"""


def test_an_interrupt_lets_the_step_save(tmp_path: Path):
    """A terminal sends Ctrl-C to both; training then finishes its step and writes a checkpoint."""
    command = [sys.executable, "-c", CODE, tmp_path]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert (tmp_path / "saved").exists() and not (tmp_path / "train.done.json").exists()
