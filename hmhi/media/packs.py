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

from hmhi.errors import BadFileError
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
        BadFileError: A pack is not a readable zip or video file, or names in a zip file are absolute.
    """
    if sequence.is_dir():
        found = [entry for entry in sequence.iterdir() if entry.suffix.lower() in suffixes]
    elif sequence.suffix.lower() == ".zip":
        members = [name for name in _zip_file(sequence).namelist() if not name.endswith("/")]
        if any(name.startswith("/") for name in members):  # joined to the zip's path they would leave it
            raise BadFileError(f"{sequence}: names in it begin with /; pack the files anew")
        found = [sequence / name for name in members if Path(name).suffix.lower() in suffixes]
    else:
        return [sequence / f"{index:05d}{VIDEO_FRAME}" for index in range(count_frames(sequence))]
    return in_order(path for path in found if not path.name.startswith("."))


def find_frames(root: Path) -> dict[Path, list[Path]]:
    """Frames, in order, of every folder and pack at or below a folder, or of one video file or pack.

    Returns:
        Path relative to the root, of a pack without its suffix -> frames. A folder goes before a pack of its name.

    Raises:
        BadFileError: A pack is not a readable zip or video file.
    """
    if root.is_file():
        return {Path(): list_files(root, IMAGE_SUFFIXES)}
    found = {}
    for parent, folders, names in os.walk(root, followlinks=True):  # data sets may be linked into place
        folders[:] = (name for name in folders if not name.startswith("."))
        packs = (name for name in names if Path(name).suffix.lower() in PACK_SUFFIXES and name[0] != ".")
        for sequence in (Path(parent), *(Path(parent, name) for name in packs)):
            name = sequence if sequence.is_dir() else sequence.with_suffix("")
            if frames := list_files(sequence, IMAGE_SUFFIXES | {".ppm"}):
                found[name.relative_to(root)] = frames
    return dict(sorted(found.items()))


def read_bytes(path: Path) -> bytes:
    """Content of a file that lies in a folder or in a zip pack.

    Raises:
        FileNotFoundError: No such file or zip member.
        BadFileError: The zip file or its member is damaged.
    """
    archive = next((p for p in path.parents if p.suffix.lower() == ".zip" and p.is_file()), None)
    if archive is None:
        return path.read_bytes()
    try:
        return _zip_file(archive).read(path.relative_to(archive).as_posix())
    except KeyError:
        raise FileNotFoundError(f"{path}: no such member in the zip file") from None
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise BadFileError(f"{path}: cannot be read from the zip file ({error})") from None


def _zip_file(path: Path) -> zipfile.ZipFile:
    try:
        return _cached_zip(path, os.getpid())
    except (zipfile.BadZipFile, OSError) as error:
        raise BadFileError(f"{path}: not a readable zip file ({error})") from None


@lru_cache(maxsize=16)
def _cached_zip(path: Path, pid: int) -> zipfile.ZipFile:
    # Keyed by process: a file handle shared over fork would share its position too.
    return zipfile.ZipFile(path)
