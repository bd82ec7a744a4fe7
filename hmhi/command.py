"""What the user commands share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


def report_errors(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Turn an error of the user's (ValueError, OSError) into one report on stderr and exit code 2."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2

    return run
