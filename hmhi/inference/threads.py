"""How many threads torch runs on, where other work runs beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hmhi.evaluation.runner import available_processors


@contextmanager
def leave_a_core() -> Iterator[None]:
    """Run torch on all cores but one inside, for work that other threads do at the same time.

    What `OMP_NUM_THREADS` says, or a caller who has set fewer threads, stands. The number is the process's: it is
    set back at the end, so that only what runs inside is affected.
    """
    before = torch.get_num_threads()
    fewer = max(1, available_processors() - 1)
    if os.environ.get("OMP_NUM_THREADS") or before <= fewer:
        yield
        return
    torch.set_num_threads(fewer)
    try:
        yield
    finally:
        torch.set_num_threads(before)
