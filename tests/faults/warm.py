"""A process that has imported everything, and forks one child for each command: milliseconds instead of seconds.

Reads one JSON request a line on stdin, answers with one a line on stdout.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

MOST_BYTES = 6 << 30  # that a command can allocate: an endless file must not take the machine down
GROUPS_END_WITHIN = 1.0  # seconds that processes of a command may outlive it


def main() -> None:
    preload()
    answers = os.fdopen(os.dup(1), "w")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            end(run(request))
        answers.write(json.dumps(watch(child, request["timeout"])) + "\n")
        answers.flush()


def preload() -> None:
    import cv2
    import torch

    import hmhi.commands

    for module in pkgutil.iter_modules(hmhi.commands.__path__, "hmhi.commands."):
        importlib.import_module(module.name)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    gc.collect()
    gc.freeze()  # so that a child's collector does not copy every page


def run(request: dict) -> object:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, key in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[key], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES,) * 2)
    if request["file_limit"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk is an error, not a signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"],) * 2)
    name, *words = request["words"]
    sys.argv = [name, *words]
    if name == "hmhi":
        module = importlib.import_module("hmhi.commands.main")
    else:  # a file of tools/, by the command behind it
        module = importlib.import_module(f"hmhi.commands.{name}")
    try:
        return module.main(words)
    except SystemExit as stop:
        return stop.code
    except BaseException:
        traceback.print_exc()
        return 1


def end(code: object) -> None:
    """What Python does at its end, but for taking apart what was imported: that costs more than most cases."""
    with contextlib.suppress(Exception):
        threading._shutdown()
        atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def watch(child: int, timeout: float) -> dict:
    """Wait for a command's end, and for that of the processes that it started."""
    start = time.monotonic()
    hung = False
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if not hung and time.monotonic() - start > timeout:
            hung = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    ended = time.monotonic()
    orphans = alive(child)
    while orphans and time.monotonic() - ended < GROUPS_END_WITHIN:
        time.sleep(0.02)
        orphans = alive(child)
    if orphans:
        os.killpg(child, signal.SIGKILL)
    return {
        "code": os.waitstatus_to_exitcode(status), "hung": hung, "orphans": orphans,
        "seconds": ended - start, "processor": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024,
    }  # fmt: skip


def alive(group: int) -> bool:
    """Whether a process of a group runs; one that has ended and waits for the system to take note does not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return any(runs(stat, group) for stat in Path("/proc").glob("[0-9]*/stat"))
    return False


def runs(stat: Path, group: int) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        return int(of_group) == group and state not in "ZX"
    return False


if __name__ == "__main__":
    main()
