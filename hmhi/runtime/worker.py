"""A process that does one task at a time, and that outlives neither a time limit nor a crash.

A decoder that hangs or crashes on hostile video then costs one task, not the program.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hmhi.errors import UserError

Perform = Callable[[Any, Callable[[Any], None]], Any]
"""Takes a task and a function for notices; gives the result."""

_GRACE = 5.0  # seconds that a task has to stop by itself
_POLL = 0.1


class TaskRefusedError(UserError):
    """The task's input is at fault; the text says why."""


class TaskStoppedError(Exception):
    """The task was stopped on request."""


class TimeLimitError(UserError):
    """The task took longer than it may."""


class WorkerDiedError(RuntimeError):
    """The process ended, or raised what it should not; the text holds the traceback, if there is one."""


class WorkerProcess:
    """Starts with the first task and again after every end that it did not choose.

    Args:
        build: Called once in each process; gives the function of tasks. It must be importable, as the process is
            spawned.
        settings: Argument of `build`.
    """

    def __init__(self, build: Callable[[Any], Perform], settings: Any) -> None:
        self._build, self._settings = build, settings
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._connection: Connection | None = None
        self._stop: Any = None

    def run(
        self,
        task: Any,
        *,
        time_limit: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
        notice: Callable[[Any], None] = lambda value: None,
    ) -> Any:
        """Do a task and return its result.

        Args:
            task: What the built function takes; must pickle, as must results.
            time_limit: Seconds, the start of the process left out.
            stopped: Asked all the time; True ends the task.
            notice: Receives what the task reports.

        Raises:
            TaskRefusedError: The task raised `UserError` or OSError.
            TaskStoppedError: `stopped` said so.
            TimeLimitError: It took too long.
            WorkerDiedError: The process crashed, or the task raised anything else.
        """
        connection = self._start()
        connection.send(task)
        deadline: float | None = None
        grace: float | None = None
        while True:
            try:
                kind, value = connection.recv() if connection.poll(_POLL) else ("", None)
            except (EOFError, OSError):
                self._process.join()
                code = self._process.exitcode
                self.close()
                raise WorkerDiedError(f"the process ended with exit code {code}") from None
            now = time.monotonic()
            if kind == "begun" and time_limit is not None:
                deadline = now + time_limit
            elif kind == "notice":
                notice(value)
            elif kind == "done":
                return value
            elif kind == "refused":
                raise TaskRefusedError(value)
            elif kind == "failed":
                raise WorkerDiedError(value)
            elif kind == "stopped":
                raise TaskStoppedError
            if grace is None and stopped():
                self._stop.set()
                grace = now + _GRACE
            if grace is not None and now > grace:
                self.close()
                raise TaskStoppedError
            if deadline is not None and now > deadline:
                self.close()
                raise TimeLimitError(f"it took longer than {time_limit:g} seconds")

    def close(self) -> None:
        """End the process at once; the next task starts another one."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = self._stop = None

    def _start(self) -> Connection:
        if self._connection is None or not self._process.is_alive():
            self.close()
            self._stop = self._context.Event()
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_serve, args=(theirs, self._stop, self._build, self._settings), daemon=True
            )
            self._process.start()
            theirs.close()
        self._stop.clear()
        return self._connection


class _Stop(BaseException):
    """Unwinds a task that was asked to stop; no handler of errors may hold it up."""


def _serve(connection: Connection, stop: Any, build: Callable[[Any], Perform], settings: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

    def report(value: Any) -> None:
        connection.send(("notice", value))
        if stop.is_set():
            raise _Stop

    perform: Perform | None = None
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            perform = perform or build(settings)
            connection.send(("begun", None))
            answer = ("done", perform(task, report))
        except _Stop:
            answer = ("stopped", None)
        except (UserError, OSError) as error:
            answer = ("refused", str(error))
        except Exception:
            answer = ("failed", traceback.format_exc())
        connection.send(answer)
