"""python -m hmhi.commands.launch, in place of torchrun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
folder, ending = sys.argv[1:]
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
open(os.path.join(folder, os.environ["RANK"]), "w").close()
if ending == "stop":
    while not stopped:
        time.sleep(0.05)
    sys.exit(128 + signal.SIGTERM)
if os.environ["RANK"] == "1":
    if ending == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stderr.write("error: no such thing\\n")
    sys.exit(2)
time.sleep(60 if ending == "die" else 0)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("fail", 2),
        pytest.param("die", 128 + signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("stop", 128 + signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_it_ends_as_its_processes_do(tmp_path: Path, ending: str, code: int):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    module = [sys.executable, "-m", "hmhi.commands.launch", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*module, str(program), str(tmp_path), ending], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if ending == "stop":
        while not {"0", "1"} <= set(os.listdir(tmp_path)):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert ("error: no such thing" in errors) == (ending == "fail")
