"""Sequences on disk: folders of frames, and packs, which are zip or video files in the place of such a folder.

``bear.zip`` or ``bear.mp4`` may lie where the folder ``bear`` is expected. Frames of a pack are addressed by paths
that lead into it, ``bear.zip/00000.jpg`` and ``bear.mp4/00000.frame``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from hmhi.errors import BadFileError, UserError
from hmhi.media.files import check_bytes, check_file, read_file, walk_folders
from hmhi.media.names import check_member, printable, safe_name
from hmhi.media.order import in_order
from hmhi.media.video_in import VIDEO_SUFFIXES, count_frames

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MASK_SUFFIXES = frozenset({".png"})
FLOW_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".flo"})
PACK_SUFFIXES = VIDEO_SUFFIXES | {".zip"}
VIDEO_FRAME = ".frame"
"""Suffix by which a path names a frame of a video file."""


def find_sequence(parent: Path, name: str) -> Path | None:
    """The folder or pack of a sequence below a parent folder, or None."""
    folder = parent / name
    if folder.is_dir():
        return folder
    packs = (parent / f"{name}{suffix}" for suffix in sorted(PACK_SUFFIXES))
    return next((pack for pack in packs if pack.is_file()), None)


def list_sequences(parent: Path) -> list[str]:
    """Sorted names of the sequences (folders and packs) below a folder; hidden entries are left out."""
    names = set()
    for entry in parent.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names.add(entry.name)
        elif entry.suffix.lower() in PACK_SUFFIXES:
            names.add(entry.stem)
    return sorted(names)


def list_files(sequence: Path, suffixes: Collection[str]) -> list[Path]:
    """Paths of a sequence's files with one of the suffixes, in the order of frames; a video file gives its frames.

    Raises:
        BadFileError: A pack is not a readable zip or video file, a name in a zip file leads out of it, or the name of
            a frame is not printable.
    """
    if sequence.is_dir():
        found = [entry for entry in sequence.iterdir() if entry.suffix.lower() in suffixes]
    elif sequence.suffix.lower() == ".zip":
        names = [name for name in _zip_file(sequence).namelist() if Path(name).suffix.lower() in suffixes]
        try:
            found = [sequence / check_member(name) for name in names if not name.endswith("/")]
        except UserError as error:
            raise BadFileError(f"{sequence}: {error}; pack the files anew") from None
    else:
        return [sequence / f"{index:05d}{VIDEO_FRAME}" for index in range(count_frames(sequence))]
    found = [path for path in found if not path.name.startswith(".")]
    if odd := [path.name for path in found if not path.name.isprintable()]:  # masks will have these names
        raise BadFileError(f"{sequence}: the name '{printable(odd[0])}' is not plain text; rename the file")
    return in_order(found)


def find_frames(root: Path) -> dict[Path, list[Path]]:
    """Frames, in order, of every folder and pack at or below a folder, or of one video file or pack.

    Returns:
        Path relative to the root, of a pack without its suffix -> frames. A folder goes before a pack of its name.

    Raises:
        BadFileError: A pack is not a readable zip or video file.
    """
    if root.is_file():
        return {Path(): list_files(root, IMAGE_SUFFIXES)}
    if not root.is_dir():
        return {}
    found = {}
    for folder, entries in walk_folders(root):
        if frames := list_files(folder, IMAGE_SUFFIXES | {".ppm"}):
            found[folder.relative_to(root)] = frames
        packs = [Path(entry.path) for entry in entries if Path(entry.name).suffix.lower() in PACK_SUFFIXES]
        for pack in packs:
            if pack.is_file() and (frames := list_files(pack, IMAGE_SUFFIXES | {".ppm"})):
                found[(folder / safe_name(pack.stem)).relative_to(root)] = frames
    return dict(sorted(found.items()))


def read_bytes(path: Path) -> bytes:
    """Content of a file that lies in a folder or in a zip pack.

    Raises:
        FileNotFoundError: No such file or zip member.
        BadFileError: The zip file or its member is damaged, it is larger than `hmhi.media.files.MAX_BYTES`, or it is
            not a regular file.
    """
    archive = next((p for p in path.parents if p.suffix.lower() == ".zip" and p.is_file()), None)
    if archive is None:
        return read_file(path)
    bundle, member = _zip_file(archive), path.relative_to(archive).as_posix()
    try:
        size = bundle.getinfo(member).file_size
    except KeyError:
        raise FileNotFoundError(f"{path}: no such member in the zip file") from None
    check_bytes(path, size)
    try:
        return bundle.read(member)
    except Exception as error:  # hostile bytes reach many error types of zipfile and its decompressors
        raise BadFileError(
            f"{path}: cannot be read from the zip file ({error or type(error).__name__})"
        ) from None


def _zip_file(path: Path) -> zipfile.ZipFile:
    status = check_file(path)
    try:
        return _cached_zip(path, os.getpid(), status.st_size, status.st_mtime_ns, status.st_ino)
    except PermissionError:
        raise
    except Exception as error:  # as in read_bytes
        raise BadFileError(f"{path}: not a readable zip file ({error or type(error).__name__})") from None


@lru_cache(maxsize=16)
def _cached_zip(path: Path, pid: int, *identity: int) -> zipfile.ZipFile:
    # Keyed by process, as a file handle shared over fork would share its position too, and by what tells that
    # another file has taken the path.
    return zipfile.ZipFile(path)
