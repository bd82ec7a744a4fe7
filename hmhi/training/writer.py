"""Checkpoints written beside the training, in a thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from torch import Tensor

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Runs one write after the other in a thread; a write that fails is raised at the next call.

    Leaving its ``with`` block waits for the last write, whatever ends the block; so does the interpreter's exit.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin a write once the one before is complete.

        Args:
            write: Called in the thread; the tensors that it writes must be its own, as `cpu_copy` makes them.

        Raises:
            OSError: The write before failed; this one is not begun.
        """
        self.wait()
        self._last = self._pool.submit(write)

    def check(self) -> None:
        """Raise what made a write fail, without waiting for one under way."""
        if self._last is not None and self._last.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is left to write, or raise what made the last write fail."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._pool.shutdown()
        try:
            self.wait()
        except OSError as error:
            if kind is None:
                raise
            log.error("%s", error)  # what ends the block is raised already


def cpu_copy(value: Any) -> Any:
    """Nested dicts and lists with copies of their tensors on the CPU, which later steps do not change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: cpu_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(cpu_copy(item) for item in value)
    return value
