"""Memory of the process between frames."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_pages() -> bool:
    """Have this process keep the memory that it frees, and ask for it in huge pages.

    By default glibc returns every buffer of more than 32 MiB to the system and gets it back page by page, with
    each tensor of each frame; the network's are of that size. Buffers on the CPU alone, and those of the whole
    process: for programs, before their first tensor, not for libraries. Peak memory stays what it was, and is
    held until the process ends.

    Returns:
        False where it cannot be done: it needs glibc on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first allocates
    return True
