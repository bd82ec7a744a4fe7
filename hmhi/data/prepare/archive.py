"""Unpack published archives safely."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from hmhi.errors import BadFileError, UserError
from hmhi.media.names import check_member

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


_BLOCK = 1 << 20


def is_archive(path: Path) -> bool:
    """Whether a path is a file whose name says that it is a zip or tar archive."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool]) -> Path:
    """Write an archive's wanted files below a folder, or find them there from an earlier, complete run.

    Args:
        archive: Zip or tar file.
        folder: Where a sub-folder with the archive's name is made.
        wanted: Tells by a member's path whether it is needed.

    Returns:
        The sub-folder.

    Raises:
        BadFileError: The archive is damaged, or a member's name leads out of the folder.
        OSError: The disk is full.
    """
    target = folder / archive.name
    stat = archive.stat()
    stamp, done = f"{stat.st_size} {stat.st_mtime_ns}", folder / f"{archive.name}.complete"
    if done.is_file() and done.read_text() == stamp:
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    members = _members(archive)
    while True:
        with _reading(archive):
            name, size, content = next(members, (None, 0, None))
        if name is None or content is None:
            break
        path = _safe_path(name, archive)
        if not wanted(path):
            continue
        if size > shutil.disk_usage(target).free:
            raise OSError(f"no space on {target} for {name} of {archive}")
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        with (target / path).open("wb") as sink:
            sink.writelines(_blocks(content, archive))
    done.write_text(stamp)
    return target


def _blocks(content: IO[bytes], archive: Path) -> Iterator[bytes]:
    while True:
        with _reading(archive):
            block = content.read(_BLOCK)
        if not block:
            return
        yield block


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Hostile bytes reach many error types of zipfile, tarfile and their decompressors; those of the disk pass."""
    try:
        yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # tarfile's run over many lines
        raise BadFileError(
            f"{archive}: damaged or unsupported archive ({reason}); download it again"
        ) from None


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of the regular files of an archive; links and devices are left out."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir() and not _is_link(info):
                    with bundle.open(info) as stream:
                        yield info.filename, info.file_size, stream
    else:
        with tarfile.open(archive) as tape:
            for entry in tape:
                content = tape.extractfile(entry) if entry.isreg() else None
                if content is not None:
                    yield entry.name, entry.size, content


def _is_link(info: zipfile.ZipInfo) -> bool:
    return (info.external_attr >> 16) & 0o170000 == 0o120000


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    try:
        return check_member(name)
    except UserError as error:
        raise BadFileError(f"{archive}: refused, {error}") from None
