"""The queue: jobs wait their turn, one is worked on, finished ones are kept for a while.

Each job has a folder of its own, with a record that survives a restart: finished jobs stay, unfinished ones begin
anew, and half an upload is removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hmhi.errors import UserError
from hmhi.media.atomic import write_json
from hmhi.runtime.worker import (
    TaskRefusedError,
    TaskStoppedError,
    TimeLimitError,
    WorkerDiedError,
    WorkerProcess,
)
from hmhi.serve.settings import JobOptions, Limits, Task
from hmhi.serve.work import DOWNLOADS, PAINTED, UPLOAD

log = logging.getLogger(__name__)

RECORD = "job.json"
_ID = re.compile(r"[A-Za-z0-9_-]{16}")
_SWEEP = 30.0  # seconds between looks at age and disk


class ServerFullError(UserError):
    """No job can be taken now."""


@dataclass
class Job:
    """One video and what has become of it."""

    id: str
    name: str
    """As the user calls the file; shown, never used as a path."""
    options: JobOptions
    sample: str | None = None
    frame: int | None = None
    """Whose painted objects are followed; None finds the salient object."""
    state: str = "uploading"
    """``uploading``, ``queued``, ``running``, ``done`` or ``failed``."""
    error: str | None = None
    created: float = field(default_factory=time.time)
    ended: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """``width``, ``height``, ``fps``, ``total`` (stated frames, or None) and ``frames`` (done)."""
    began: float | None = None
    """Clock at the first frame, and not the time of day."""
    cancelled: bool = False


class Jobs:
    """All jobs of a server, and the thread that works on them.

    Args:
        folder: Holds a folder for each job; made if it is not there.
        limits: Of every job and of all together.
        worker: Does the work.
    """

    def __init__(self, folder: Path, limits: Limits, worker: WorkerProcess) -> None:
        self._folder, self._limits, self._worker = folder, limits, worker
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._queue: list[str] = []
        self._wake = threading.Condition(self._lock)
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        self._load()
        self._threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True)
            for target in (self._work_on, self._sweep_on)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, name: str, options: JobOptions, sample: str | None = None) -> Job:
        """Make a job whose video is still to come; `submit` or `remove` must follow.

        Raises:
            ServerFullError: The queue or the disk is full.
        """
        with self._lock:
            self.sweep()
            coming = sum(job.state in ("uploading", "queued") for job in self._jobs.values())
            if coming >= self._limits.waiting:
                raise ServerFullError("too many jobs are waiting; try again later")
            if self._used() >= self._limits.disk_bytes:
                raise ServerFullError("the server's disk budget is used up; try again later")
            job = Job(secrets.token_urlsafe(12), name[:200], options, sample)
            self._jobs[job.id] = job
            self.folder(job).mkdir()
            return job

    def submit(self, job: Job) -> None:
        """Put a job whose video has come into the queue."""
        with self._lock:
            if job.cancelled:
                return
            job.state = "queued"
            self._save(job)
            self._queue.append(job.id)
            self._wake.notify_all()

    def begin_following(self, parent: Job, frame: int, options: JobOptions) -> Job:
        """Make a job that follows objects through the video of another job.

        Their mask is still to come, to `painted`; `submit` or `remove` must follow.

        Args:
            parent: Its upload is linked, so that either job can be deleted without the other.
            frame: Number of the frame that is painted in.
            options: Of the new job.

        Raises:
            ServerFullError: The queue or the disk is full.
            UserError: The video has been deleted meanwhile.
        """
        job = self.begin(parent.name, options)
        job.frame = frame
        try:
            os.link(self.folder(parent) / UPLOAD, self.folder(job) / UPLOAD)
            self.painted(job).parent.mkdir()
        except FileNotFoundError:
            self.remove(job)
            raise UserError("the video is no longer there; it may have been deleted") from None
        except OSError:
            self.remove(job)
            raise
        return job

    def get(self, identity: str) -> Job | None:
        """The job of an id."""
        return self._jobs.get(identity)

    def remove(self, job: Job) -> None:
        """Cancel a job wherever it is, and delete all of it."""
        with self._lock:
            job.cancelled = True
            if job.id in self._queue:
                self._queue.remove(job.id)
            if job.state == "running":
                return  # the thread at work removes it
            self._forget(job)

    def folder(self, job: Job) -> Path:
        """Where the files of a job lie."""
        return self._folder / job.id

    def painted(self, job: Job) -> Path:
        """Where the mask of a job that follows objects lies, a picture of ids."""
        assert job.frame is not None
        return self.folder(job) / PAINTED / f"{job.frame:05d}.png"

    def describe(self, job: Job) -> dict[str, Any]:
        """What anyone who has the id may know."""
        with self._lock:
            facts, done = job.facts, job.facts.get("frames", 0)
            answer: dict[str, Any] = {
                "id": job.id, "name": job.name, "state": job.state, "error": job.error,
                "options": asdict(job.options), "frame": job.frame, "created": job.created, "frames": done,
                **{key: facts.get(key) for key in ("total", "width", "height", "fps")},
                "place": self._queue.index(job.id) + 1 if job.id in self._queue else None,
                "speed": None, "seconds_left": None,
                "kept_until": None if job.ended is None else job.ended + self._limits.keep_seconds,
                "downloads": [],
            }  # fmt: skip
        if job.state == "running" and job.began is not None and done > 1:
            answer["speed"] = (done - 1) / max(time.monotonic() - job.began, 1e-6)
            if facts.get("total"):
                answer["seconds_left"] = max(0, facts["total"] - done) / answer["speed"]
        if job.state == "done":
            out = self.folder(job) / "out"
            answer["downloads"] = [name for name, (place, _) in DOWNLOADS.items() if (out / place).is_file()]
        return answer

    def sweep(self) -> None:
        """Delete finished jobs that are too old, and the oldest ones while they take too much of the disk."""
        with self._lock:
            finished = sorted(
                (job for job in self._jobs.values() if job.ended is not None), key=lambda job: job.ended or 0
            )
            used = self._used()
            for job in finished:
                old = time.time() > (job.ended or 0) + self._limits.keep_seconds
                if old or used > self._limits.disk_bytes:
                    self._forget(job)
                    used = self._used()

    def close(self) -> None:
        """Stop working; the job at hand begins anew with the next start."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)
        self._worker.close()

    def _load(self) -> None:
        for folder in self._folder.iterdir():
            if not _ID.fullmatch(folder.name):
                continue  # not ours
            try:
                record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
                job = Job(**{**record, "options": JobOptions(**record["options"])})
            except (OSError, TypeError, ValueError):
                shutil.rmtree(folder, ignore_errors=True)  # half an upload
                continue
            self._jobs[job.id] = job
        for job in sorted(self._jobs.values(), key=lambda job: job.created):
            if job.state == "queued":
                self._queue.append(job.id)

    def _save(self, job: Job) -> None:
        record = asdict(job)
        for key in ("began", "cancelled"):
            del record[key]
        if job.state == "running":
            record |= {"state": "queued", "facts": {}}  # what the next start makes of it
        write_json(self.folder(job) / RECORD, record)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def _used(self) -> int:
        total = 0
        for parent, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a job is at work
                    total += os.stat(os.path.join(parent, name)).st_size
        return total

    def _sweep_on(self) -> None:
        while not self._closed:
            with self._lock:
                self._wake.wait(timeout=_SWEEP)
                if self._closed:
                    return
            self._guard(self.sweep)

    def _work_on(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                job = self._jobs[self._queue.pop(0)]
                job.state, job.facts, job.began = "running", {}, None
            self._guard(lambda job=job: self._work(job))  # type: ignore[misc]

    @staticmethod
    def _guard(call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("the queue goes on")

    def _work(self, job: Job) -> None:
        def notice(facts: dict[str, Any]) -> None:
            with self._lock:
                if job.began is None and facts.get("frames"):
                    job.began = time.monotonic()
                job.facts |= facts

        task = Task(self.folder(job), job.options, self._limits, job.sample, job.frame is not None)
        state, error = "failed", None
        try:
            job.facts |= self._worker.run(
                task,
                time_limit=self._limits.seconds,
                stopped=lambda: job.cancelled or self._closed,
                notice=notice,
            )
            state = "done"
        except TaskStoppedError:
            if not job.cancelled:
                return  # the server closes; the record says that it waits
        except TaskRefusedError as refusal:
            error = str(refusal)
        except TimeLimitError:
            error = f"the video took longer than {self._limits.seconds:g} seconds, the limit of this server"
        except WorkerDiedError as fault:
            log.error("job %s: %s", job.id, fault)
            error = "the video cannot be segmented: the decoder or the network failed on it"
        with self._lock:
            job.state, job.error, job.ended = state, error, time.time()
            if job.cancelled:
                self._forget(job)
                return
            if state == "failed":
                shutil.rmtree(self.folder(job) / "out", ignore_errors=True)
            self._save(job)
            self.sweep()
