"""A server as users start it, and videos to send to it."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import numpy as np


class Server:
    """Talks to a running server."""

    def __init__(self, address, folder):
        self.address, self.folder = address, folder

    def ask(self, path, data=None, method=None, **headers):
        """Status and content of an answer; JSON is read."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, data=data, method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, kind, content = answer.status, answer.headers["content-type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, content = error.code, error.headers["content-type"], error.read()
        return status, json.loads(content) if kind == "application/json" else content

    def wait(self, identity, *states, seconds=120):
        """The job, once it is in one of these states."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, job = self.ask(f"/jobs/{identity}")
            if status != 200 or job["state"] in states:
                return job
            time.sleep(0.1)
        raise AssertionError(f"job {identity} did not become {states}: {job}")


def start_server(repository, folder, checkpoint, *options):
    """The process, and its address."""
    process = subprocess.Popen(
        [
            sys.executable, str(repository / "tools" / "serve.py"), "--port", "0", "--folder", str(folder),
            "--checkpoint", str(checkpoint), *options,
        ],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    line = process.stdout.readline()
    address = re.search(r"http://[^/]+", line)
    assert address, line
    return process, address[0], line


def make_video(path, frames=24, size=(64, 96), fps=12.0):
    """A bright square that moves over noise."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    still = np.random.default_rng(0).integers(60, 120, (*size, 3), dtype=np.uint8) // (
        1 if size[0] < 1000 else 60
    )
    for t in range(frames):
        frame = still.copy()
        frame[16:48, 10 + 2 * t % 40 : 40 + 2 * t % 40] = (40, 200, 240)
        writer.write(frame)
    writer.release()
    return path


def build_quick(settings):
    """Work for tests of the queue: each job writes `settings` bytes, or crashes where it asks for size 512."""

    def perform(task, report):
        if task.options.image_size == 512:
            os._exit(3)
        (task.folder / "out").mkdir()
        (task.folder / "out" / "masks.zip").write_bytes(bytes(settings))
        report({"frames": 1})
        return {"frames": 1}

    return perform
