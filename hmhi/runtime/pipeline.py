"""Run the stages of a stream side by side, each in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

PATIENCE = 5.0
"""Seconds that closing waits for a thread; one that waits itself, for a camera or a generator, is left behind."""


def run_ahead(items: Iterator[Item], depth: int, name: str) -> Generator[Item, None, None]:
    """Iterate in a thread, never more than `depth` items ahead of the one who takes them.

    Stages chain: give one's result to the next. Closing the last one, also by an error or by dropping it, ends
    the threads of all. What an iterator raises is raised where its items are taken, after those before it.

    Args:
        items: Iterated and closed in the thread only.
        depth: Items that may wait, 1 or more; with the one that is being made, that bounds memory.
        name: Of the thread, for debuggers.
    """
    room = threading.Semaphore(depth)
    made: queue.SimpleQueue[tuple[Item] | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                made.put((next(items),))
        except StopIteration:
            made.put(None)
        except BaseException as error:
            made.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        stopped.set()
        room.release()
        thread.join(PATIENCE)
        if thread.is_alive():
            log.warning("%s is still busy; its thread ends as soon as it is not", name)
