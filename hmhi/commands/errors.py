"""How every command ends: the user's mistakes as one line, our own with their traceback."""

from __future__ import annotations

import functools
import io
import shlex
import sys
import traceback
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
        if isinstance(sys.stdout, io.TextIOWrapper):  # names that are no UTF-8 are shown, not stumbled over
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            sys.stdout = None  # or Python would fail once more when it flushes
            return 0
        except (UserError, OSError) as error:
            sys.stderr.write(f"error: {_shown(error)}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return 130
        except Exception as error:
            if isinstance(error, RuntimeError) and str(error).startswith(
                "Symlink loop"
            ):  # pathlib before 3.13
                sys.stderr.write(f"error: {_shown(error)}\n")
                return 2
            if is_out_of_memory(error):
                sys.stderr.write(f"error: out of memory: {str(error) or 'no more to be had'}\n")
                return 2
            traceback.print_exc()
            sys.stderr.write(
                f"\nThis is a bug in hmhi {__version__}, not in your input. Please report it with the text above "
                f"and the command:\n{shlex.join(sys.argv)}\n"
            )
            return 1

    return run


def _shown(error: Exception) -> str:
    """An error's lines, in which the names of files cannot steer a terminal."""
    return "\n".join(printable(line) for line in str(error).split("\n"))
