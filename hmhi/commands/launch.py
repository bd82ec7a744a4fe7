"""Start a program in several processes: torchrun, but for how it ends.

    python -m hmhi.commands.launch [torchrun's options] PROGRAM [its arguments]

Torchrun answers SIGTERM and every failure with a traceback of its own and exit code 1. Here the exit code is that of
the program: 128 + the signal that stopped it, or that of the first process that failed, whose message stands above.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

GRACE = "600"
"""Seconds that the processes have to finish a step and save after SIGTERM; older versions of torch give 30."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun's command line; returns the exit code."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", GRACE)
    try:
        run.run(run.parse_args(arguments))
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main())
