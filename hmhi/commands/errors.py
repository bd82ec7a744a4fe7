"""How every command ends: the user's mistakes as one line, our own with their traceback."""

from __future__ import annotations

import errno
import functools
import io
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import ParamSpec

from hmhi.errors import UserError, is_out_of_memory
from hmhi.media.names import printable
from hmhi.version import __version__

Arguments = ParamSpec("Arguments")


def report_errors(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Turn what ends a command into a message on stderr and an exit code.

    ========================  ==========================================  ====
    what was raised           what the user sees                          exit
    ========================  ==========================================  ====
    UserError, OSError        one line                                    2
    out of memory             one line                                    2
    KeyboardInterrupt         one word                                    130
    BrokenPipeError           nothing: whoever read the output has left   0
    anything else             the traceback, and how to report the bug    1
    ========================  ==========================================  ====
    """

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        logging.raiseExceptions = False  # a full disk under a log costs its lines, not a traceback for each
        warnings.filterwarnings(
            "ignore", module=r"PIL\."
        )  # on odd files; whether they could be read is what counts
        if isinstance(sys.stdout, io.TextIOWrapper):  # names that are no UTF-8 are shown escaped
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = command(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            sys.stdout = None  # or Python would fail once more when it flushes
            return 0
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return 130
        except Exception as error:
            if (line := _explain(error)) is not None:
                sys.stderr.write(f"error: {line}\n")
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    sys.stdout = None  # as above
                return 2
            traceback.print_exc()
            sys.stderr.write(
                f"\nThis is a bug in hmhi {__version__}, not in your input. Please report it with the text above "
                f"and the command:\n{shlex.join(sys.argv)}\n"
            )
            return 1

    return run


def _explain(error: Exception) -> str | None:
    """What the user can put right, in words that cannot steer a terminal; None for a bug."""
    text = str(error)
    if is_out_of_memory(error):
        text = f"out of memory: {text or 'no more to be had'}"
    elif not isinstance(error, UserError | OSError) and not text.startswith("Symlink loop"):
        return None  # pathlib before 3.13 raises RuntimeError for links in a circle
    return "\n".join(printable(line) for line in text.split("\n"))
