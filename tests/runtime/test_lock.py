"""One process at a time in a folder."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from hmhi.runtime.lock import InUseError, hold_folder


def test_a_second_holder_is_told_who_is_there(tmp_path: Path):
    with hold_folder(tmp_path / "run"):
        with (
            pytest.raises(
                InUseError, match=rf"run is in use by process {os.getpid()} on {socket.gethostname()}"
            ),
            hold_folder(tmp_path / "run"),
        ):
            pass
        with hold_folder(tmp_path / "other"):
            pass
    with hold_folder(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path: Path):
    pid = os.fork()
    if pid == 0:
        with hold_folder(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(InUseError, match=f"process {pid} "), hold_folder(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with hold_folder(tmp_path):
        pass
