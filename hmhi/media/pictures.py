"""Decode images and masks from folders, zip files and video files; every fault becomes one error.

A sequence is a folder of frames, or a *pack*: ``bear.zip`` or ``bear.mp4`` in the place of the folder
``bear``. Frames of a pack are addressed by paths that lead into it, ``bear.zip/00000.jpg`` and
``bear.mp4/00000.frame``.
"""

from __future__ import annotations

import io
import logging
import os
import re
import zipfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from PIL import Image

from hmhi.errors import UserError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MASK_SUFFIXES = frozenset({".png"})
FLOW_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".flo"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
PACK_SUFFIXES = VIDEO_SUFFIXES | {".zip"}

MAX_PIXELS = 2**26
"""Largest image that is decoded: 67 megapixels, twice 8K video. Beyond it lies a decompression bomb."""

SHAPE_TOLERANCE = 0.05
"""Relative difference in aspect ratio between an image and its flow map that is still taken for rounding."""

_FRAME = ".frame"
_FLUSHED = 64
"""Frames that a decoder may still hold back where its input breaks off: reordering and its threads' delay."""
_ATTEMPTS = 8
"""Failures in a row after which no further frame is expected of a damaged video."""


class BadFileError(UserError):
    """A file exists but cannot be read as what it should be."""


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
    """Paths of a sequence's files with one of the suffixes, 9.jpg before 10.jpg; a video file gives its frames.

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
        return [sequence / f"{index:05d}{_FRAME}" for index in range(count_frames(sequence))]
    return sorted((path for path in found if not path.name.startswith(".")), key=_by_number)


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


def read_rgb(path: Path) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3), as `to_rgb` does arrays.

    An EXIF orientation is not applied: the masks of data sets fit the pixels as they are stored. That of a
    video file is.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image of 8 or 16 bits a channel, or larger than `MAX_PIXELS`.
    """
    if path.suffix == _FRAME:
        return _video_reader(path.parent).read(int(path.stem))
    image = _decode(path)
    if not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGB"))
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise BadFileError(f"{path}: image of mode {image.mode}; convert it to 8 or 16 bits a channel")
    return to_rgb(levels.astype(np.uint16))


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """Bring a picture into the one form that everything here reads, uint8 (H, W, 3).

    Grey is repeated, alpha is dropped, and 16 bits are scaled by 1/257, so that white stays white.

    Args:
        picture: uint8 or uint16, (H, W) or (H, W, C): grey (C = 1), grey and alpha, RGB, or RGB and alpha.

    Raises:
        ValueError: Another type or shape.
    """
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if picture.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or picture.size == 0:
        raise ValueError(f"expected a picture of shape (H, W, 3), got {picture.shape}")
    if picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ValueError(f"expected a picture of type uint8 (0-255) or uint16, got {picture.dtype}")
    picture = picture.reshape(*picture.shape[:2], channels)
    if channels < 3:
        return np.repeat(picture[..., :1], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


def read_mask(path: Path) -> np.ndarray:
    """Decode a truth mask to uint8 (H, W) in {0, 1}.

    The one rule of this project: foreground is what is not zero. In a palette image that is every index
    above 0, so that the objects of a multi-object mask merge; in a grey one ({0, 1}, {0, 255} or ids) every
    value above 0; in a colour one every pixel that is not black. Opacity is ignored.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or larger than `MAX_PIXELS`.
    """
    foreground = read_mask_values(path) > 0
    if foreground.ndim == 3:
        foreground = np.logical_or.reduce(foreground, axis=2)
    return foreground.astype(np.uint8)


def read_mask_values(path: Path) -> np.ndarray:
    """Decode a truth mask as stored: palette indices or grey values (H, W), or colours (H, W, 3).

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable image, or larger than `MAX_PIXELS`.
    """
    image = _decode(path)
    if image.mode in ("LA", "RGBA"):
        image = image.convert(image.mode.removesuffix("A"))
    return np.array(image)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image from its header alone; of a video frame by decoding it.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not an image.
    """
    if path.suffix == _FRAME:
        height, width = read_rgb(path).shape[:2]
        return height, width
    image = _open(path)
    return image.height, image.width


def count_frames(path: Path) -> int:
    """Frames of a video file, counted one by one because containers often state a wrong number.

    Raises:
        BadFileError: Not a readable video, or damaged in the middle.
    """
    with VideoFile(path) as video:
        while video.advance():
            pass
        return video.passed


class VideoFile:
    """A video file, read from its first frame on; frames come turned as its metadata say.

    Seeking in compressed video is not exact, so it only ever goes forward. A damaged frame is an error where
    the decoder reports it; many decoders paint over small damage, which nobody can see from outside. Where the
    size changes in the middle, OpenCV 5 goes on at the first size; older ones give frames of the new size.

    Args:
        path: Anything that OpenCV's FFmpeg reads.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a video, also from the methods.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such video file")
        self.path = path
        self.passed = 0
        """Frames that `advance` has gone to; the present one has the number ``passed - 1``."""
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise BadFileError(f"{path}: not a video that OpenCV can read")

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the decoder."""
        self._capture.release()

    @property
    def fps(self) -> float | None:
        """Frames a second, on average where the rate varies; None if the file does not say."""
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        return fps if 0 < fps < 1000 else None

    @property
    def stated_frames(self) -> int | None:
        """Frames by the container's word, which may be wrong; None without it."""
        stated = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return stated if stated > 0 else None

    @property
    def time(self) -> float | None:
        """Time of the present frame in seconds: its stamp in the container, so that it holds for any frame rate.

        A bare stream has no stamps; there the frame rate tells, if that is known.
        """
        stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if stamp > 0 or self.passed <= 1:
            return max(stamp, 0.0)
        return None if self.fps is None else (self.passed - 1) / self.fps

    def advance(self) -> bool:
        """Go to the next frame; False at the end, with a warning if the file seems cut off.

        Raises:
            BadFileError: The frame cannot be decoded although later ones can.
        """
        if self._capture.grab():
            self.passed += 1
            return True
        later = self._frames_behind_damage()
        missing = (self.stated_frames or 0) - self.passed
        # A file that breaks off gives back what its decoder held, and then stays far behind its promise.
        if later and missing - later <= later:
            raise BadFileError(
                f"{self.path}: frame {self.passed} cannot be decoded, though later ones can; the file is damaged"
            )
        if missing > max(2, self.passed // 20):
            log.warning(
                "%s ends after %d of the %d frames that it states; it may be cut off",
                self.path, self.passed, self.passed + missing,
            )  # fmt: skip
        return False

    def picture(self) -> np.ndarray:
        """The present frame, (H, W, 3) uint8 RGB.

        Raises:
            BadFileError: It cannot be decoded.
        """
        good, bgr = self._capture.retrieve()
        if not good:
            raise BadFileError(f"{self.path}: frame {self.passed - 1} cannot be decoded")
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def _frames_behind_damage(self) -> int:
        found = failures = 0
        while failures < _ATTEMPTS and found <= _FLUSHED:
            if self._capture.grab():
                found, failures = found + 1, 0
            else:
                failures += 1
        return found


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


def _by_number(path: Path) -> list[str | int]:
    """Sorts names by the numbers in them: without leading zeros 10.jpg would go before 9.jpg."""
    parts: list[str | int] = [*re.split(r"([0-9]+)", path.name)]
    parts[1::2] = map(int, parts[1::2])
    return parts


def _decode(path: Path) -> Image.Image:
    image = _open(path)
    try:
        image.load()
    except Exception as error:  # hostile bytes reach many error types inside Pillow's plugins
        raise BadFileError(f"{path}: damaged image ({error or type(error).__name__})") from None
    return image


def _open(path: Path) -> Image.Image:
    data = read_bytes(path)
    if not data:
        raise BadFileError(f"{path}: the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise BadFileError(f"{path}: image too large to decode") from None
    except Exception:  # as in _decode
        raise BadFileError(f"{path}: not an image (or of an unknown type)") from None
    if image.width * image.height > MAX_PIXELS:
        raise BadFileError(f"{path}: {image.width}x{image.height} pixels is too large to decode")
    return image


def _zip_file(path: Path) -> zipfile.ZipFile:
    try:
        return _cached_zip(path, os.getpid())
    except (zipfile.BadZipFile, OSError) as error:
        raise BadFileError(f"{path}: not a readable zip file ({error})") from None


@lru_cache(maxsize=16)
def _cached_zip(path: Path, pid: int) -> zipfile.ZipFile:
    # Keyed by process: a file handle shared over fork would share its position too.
    return zipfile.ZipFile(path)


class _VideoReader:
    """Reads the frames of a video file by number; going back starts it anew."""

    def __init__(self, path: Path) -> None:
        self._video = VideoFile(path)
        self._last: tuple[int, np.ndarray] | None = None

    def read(self, index: int) -> np.ndarray:
        if self._last is None or self._last[0] != index:
            if index < self._video.passed:
                self._video.close()
                self._video = VideoFile(self._video.path)
            while self._video.passed <= index:
                if not self._video.advance():
                    raise BadFileError(
                        f"{self._video.path}: frame {index} cannot be read; {self._video.passed} frames can"
                    )
            self._last = index, self._video.picture()
        return self._last[1].copy()


def _video_reader(path: Path) -> _VideoReader:
    return _cached_video(path, os.getpid())


@lru_cache(maxsize=4)
def _cached_video(path: Path, pid: int) -> _VideoReader:
    return _VideoReader(path)
