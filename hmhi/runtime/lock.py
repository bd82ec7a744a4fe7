"""One process at a time in a folder."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from hmhi.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the file that says who holds a folder; it stays, and means nothing once its process has ended."""


class InUseError(UserError):
    """Another process writes there."""


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for this process for the length of a ``with`` block.

    The lock is the kernel's (``flock``): it ends with the process that holds it, however that ends. Where the file
    system or the platform knows none, a warning is logged and nothing is kept.

    Args:
        folder: Made where it is missing.

    Raises:
        InUseError: Another process holds it; names its host, number and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        _lock(file.fileno(), folder)
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        )
        file.flush()
        yield


def _lock(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":
        log.warning("%s is not locked: Windows has no flock; let no other process write there", folder)
        return
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
        raise InUseError(
            f"{folder} is in use by {holder}; wait until it has ended, or choose another folder"
        ) from None
    except OSError as error:
        log.warning("%s is not locked (%s); let no other process write there", folder, error)
