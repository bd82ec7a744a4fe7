"""What a user has to put right, and what nobody but us can."""

from __future__ import annotations

from numbers import Integral


class UserError(ValueError):
    """A mistake in what the user gave: an option, a setting, a file, a frame.

    Commands show it as one line and exit with 2. Its text names the file, sequence, frame or key, and what to do.
    Any other exception is a bug of ours and keeps its traceback.
    """


class BadFileError(UserError):
    """A file exists but cannot be read as what it should be."""


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number from 1.

    Raises:
        UserError: Names it.
    """
    if not isinstance(value, Integral) or value < 1:
        raise UserError(f"{name} must be 1 or more, a whole number; got {value}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, NumPy's, torch's on any device, or OpenCV's. None of them is imported."""
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in said  # torch on the CPU
        or "Insufficient memory" in said  # OpenCV
    )
