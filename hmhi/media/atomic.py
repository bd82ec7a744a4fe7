"""Writing a file so that it is there whole or not at all, and telling two files apart."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def write_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it becomes `path` when the block ends well.

    Parent folders are made. After an exception nothing is left, and an older file at `path` stays.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder where a file is due", str(path))
    if path.exists() and not path.is_file():  # /dev/full is not to be replaced, even where that is allowed
        raise FileExistsError(errno.EEXIST, "a device or pipe where a file is due", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: object, *, indent: int | None = 2) -> None:
    """Write a JSON document whole or not at all; None for `indent` gives one line."""
    with write_atomically(path) as stream:
        stream.write((json.dumps(content, indent=indent) + "\n").encode())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
