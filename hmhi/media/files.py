"""What may be read of the files that users name: regular files of a bounded size, folders that end."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hmhi.errors import BadFileError

MAX_PIXELS = 2**26
"""Largest picture that is decoded: 67 megapixels, twice 8K video. Beyond it lies a decompression bomb."""

MAX_BYTES = 8 * MAX_PIXELS
"""Largest file of one frame that is read, packed or unpacked: 512 MiB, the largest picture at 16 bits a channel."""

MAX_FOLDERS = 2**17
"""Folders below one that are looked into; more of them are links that lead to one another."""


def check_file(path: Path) -> os.stat_result:
    """Look at a file before anything opens it.

    Returns:
        Its status, of which size, time and inode tell whether it is still the same.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: It is not a regular file, or links lead in a circle.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadFileError(f"{path}: its symbolic links lead in a circle") from None
        raise
    _check_kind(path, status)
    return status


def read_file(path: Path) -> bytes:
    """Content of a file.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: It is not a regular file, or larger than `MAX_BYTES`.
    """
    check_file(path)
    with open(path, "rb", opener=_open_at_once) as stream:
        status = os.fstat(stream.fileno())  # of what is open now, whatever has taken its place in between
        _check_kind(path, status)
        check_bytes(path, status.st_size)
        return stream.read(MAX_BYTES)


def read_text(path: Path) -> str:
    """Text of a list or record.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: As `read_file`, or it is no UTF-8 text.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: not UTF-8 text ({error}); save it as such") from None


def check_bytes(path: Path, size: int) -> None:
    """Refuse content of more than `MAX_BYTES` bytes.

    Raises:
        BadFileError: It is larger.
    """
    if size > MAX_BYTES:
        raise BadFileError(f"{path}: {size / 2**20:.0f} MiB is too large to read for one frame")


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse a picture of more than `MAX_PIXELS` pixels.

    Raises:
        BadFileError: It is larger.
    """
    if width * height > MAX_PIXELS:
        raise BadFileError(f"{path}: {width}x{height} pixels is too large to decode")


def walk_folders(root: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """A folder and every folder below it with their entries, sorted; hidden ones are left out.

    Links to folders are followed, as data sets may be linked into place, but not one that leads back to a folder
    above it.

    Raises:
        BadFileError: More than `MAX_FOLDERS` folders.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    seen = 0
    while waiting:
        folder, above = waiting.pop()
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in above:
            continue
        seen += 1
        if seen > MAX_FOLDERS:
            raise BadFileError(f"{root}: more than {MAX_FOLDERS} folders; do its links lead to one another?")
        with os.scandir(folder) as scan:
            entries = sorted((entry for entry in scan if entry.name[0] != "."), key=lambda entry: entry.name)
        yield folder, entries
        below = [Path(entry.path) for entry in entries if entry.is_dir()]
        waiting += ((path, above | {identity}) for path in reversed(below))


def match_files(pattern: str) -> list[Path]:
    """Files and folders that a glob pattern matches, sorted; ``**`` stands for any folders, as `walk_folders` goes.

    Raises:
        BadFileError: As `walk_folders`.
    """
    head, *rest = re.split(r"(?:^|(?<=/))\*\*(?:/|$)", pattern, maxsplit=1)
    if not rest:
        return sorted(map(Path, glob.glob(pattern)))
    bases = [Path(base) for base in glob.glob(head)] if head else [Path()]
    folders = [folder for base in bases if base.is_dir() for folder, _ in walk_folders(base)]
    below = rest[0] or "*"
    return sorted(
        Path(match) for folder in folders for match in glob.glob(f"{glob.escape(str(folder))}/{below}")
    )


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise BadFileError(f"{path}: {kind} where a file is due")


def _open_at_once(path: str, flags: int) -> int:
    """Opening a pipe would otherwise wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
