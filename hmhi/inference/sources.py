"""Where frames come from: video files, frame folders, zip files, arrays, generators and cameras, read alike.

A source is read lazily and forward only. Beside the frames that were asked for it decodes no more than the
very next one of each, which flow needs.

Example:
    >>> source = open_source("walk.mp4", start="2.5s", end=400, every=2)
    >>> for frame in source:
    ...     use(frame.index, frame.time, frame.image)
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from hmhi.errors import UserError, check_count
from hmhi.inference.positions import BEGIN, Position, parse_position
from hmhi.media.packs import IMAGE_SUFFIXES, list_files
from hmhi.media.pictures import read_rgb, to_rgb
from hmhi.media.video_in import VideoFile

CAMERA = "camera:"
CAMERAS = 100  # OpenCV takes larger numbers for other drivers


@dataclass(frozen=True)
class SourceFrame:
    """One frame, as everything behind this module wants it."""

    index: int
    """Number in the source, from 0, whatever is left out."""
    time: float | None
    """Time stamp in seconds from the start of the source; None where nothing tells."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Entry:
    """A frame that is not decoded yet; it can be until the next entry is asked for."""

    index: int
    time: float | None
    load: Callable[[], np.ndarray]


class Neighbours(NamedTuple):
    """A frame and the images beside it in time."""

    frame: SourceFrame
    following: np.ndarray | None
    """None after the last frame of the source, or where it is not asked for."""
    previous: np.ndarray | None
    """None before the first frame of the stretch, or where it is not asked for."""


@dataclass(frozen=True)
class Source:
    """Frames in order, all of one size; made by `open_source`.

    Iterating gives the kept frames as `SourceFrame`. Raises UserError naming source and frame where a frame
    cannot be decoded, has another size than the first one, or where there is no frame at all. A generator or
    a camera can be iterated once.
    """

    name: str
    """For messages and results: stem of the file, name of the folder, ``camera0``, or ``frames``."""
    entries: Callable[[], Iterator[Entry]] = field(repr=False)
    """Starts reading; every frame of the source, decoded only where asked for."""
    fps: float | None = None
    """Frames a second of the whole source, on average; None where nothing tells."""
    total: int | None = None
    """Frames of the whole source; None where unknown, and a guess for video files, whose containers may err."""
    stems: tuple[str, ...] | None = field(default=None, repr=False)
    """File stem of each frame of the whole source; None where frames are not files."""
    start: Position = BEGIN
    """First frame to keep."""
    end: Position | None = None
    """Where to stop; that frame is not kept."""
    every: int = 1
    """Of the frames from `start` on, each every-th is kept."""

    @property
    def length(self) -> int | None:
        """Frames that will be kept, for a progress bar: exact where `total` is and positions are frames."""
        if self.total is None:
            return None
        bounds = []
        for position in (self.start, self.end or Position(self.total)):
            if position.frame is not None:
                bounds.append(position.frame)
            elif self.fps is None:
                return None
            else:
                bounds.append(math.ceil((position.seconds or 0) * self.fps))
        return max(0, math.ceil((min(bounds[1], self.total) - bounds[0]) / self.every))

    def stem(self, index: int) -> str:
        """Name of a frame: the stem of its file, or its number with five digits."""
        return f"{index:05d}" if self.stems is None else self.stems[index]

    def __iter__(self) -> Iterator[SourceFrame]:
        for frame, _, _ in self.neighbours(following=False):
            yield frame

    def neighbours(
        self, *, following: bool = True, previous: bool = False
    ) -> Generator[Neighbours, None, None]:
        """Each kept frame with its very neighbours in the source, kept or not.

        So a frame's flow is the same whatever else is kept. Nothing before `start` is decoded.

        Args:
            following: Whether to give next frames; otherwise nothing is read beyond the one at hand.
            previous: Whether to give previous frames.
        """
        waiting: Neighbours | None = None  # for its next frame
        before: np.ndarray | None = None
        first: int | None = None
        shape: tuple[int, ...] | None = None
        seen = 0
        for entry in self.entries():
            index = entry.index
            seen = index + 1
            if not self.start.reached(index, entry.time):
                continue
            first = index if first is None else first
            over = self.end is not None and self.end.reached(index, entry.time)
            keep = not over and (index - first) % self.every == 0
            precedes = previous and not over and (index + 1 - first) % self.every == 0
            if not (keep or precedes or waiting is not None):
                before = None
            else:
                image = entry.load()
                shape = shape or image.shape
                if image.shape != shape:
                    raise UserError(
                        f"{self.name}: frame {index} is {image.shape[1]} x {image.shape[0]}, but the video began "
                        f"with {shape[1]} x {shape[0]}; all frames must be of one size"
                    )
                if waiting is not None:
                    yield waiting._replace(following=image)
                    waiting = None
                if keep:
                    waiting = Neighbours(SourceFrame(index, entry.time, image), None, before)
                    if not following:
                        yield waiting
                        waiting = None
                before = image if previous else None
            if over:
                break
        if waiting is not None:
            yield waiting
        if shape is None:
            where = "" if seen == 0 else f" from {self.start} to {self.end or 'the end'} (it has {seen})"
            raise UserError(f"{self.name}: there is no frame{where}")


SourceLike = str | Path | bytes | io.BufferedIOBase | Source | Sequence[str | Path] | Iterable[np.ndarray]
"""What `open_source` opens."""


def open_source(
    source: SourceLike,
    *,
    start: int | str | None = None,
    end: int | str | None = None,
    every: int = 1,
    fps: float | None = None,
) -> Source:
    """Open anything that has frames; nothing is decoded yet.

    Args:
        source: A video file (turned as its metadata say, times from its own stamps), its bytes or an open binary
            file of them that can seek (which is read from its beginning and not closed), a folder or zip file of
            images (in the order of the numbers in their names), one image, ``camera:0``, a sequence of image
            paths, or arrays in a sequence, generator or other iterable: (H, W) or (H, W, C), uint8 or uint16, see
            `hmhi.media.pictures.to_rgb`. An open Source is handed back as it is.
        start: First frame: its number from 0, or seconds such as ``"2.5s"``.
        end: Where to stop, alike; this frame is left out. None goes to the end.
        every: Keep each every-th frame from `start` on.
        fps: Rate of images and arrays, which have none of their own; without it they have no times either.

    Raises:
        FileNotFoundError: A path does not exist, or holds no images.
        BadFileError: Not a readable video or zip file.
        UserError: A position makes no sense, or two images differ only in their suffix.
        OSError: The camera cannot be opened.
    """
    if isinstance(source, Source):
        if (start, end, every, fps) != (None, None, 1, None):
            raise UserError(f"{source.name} is open already; give start, end, every and fps to open_source")
        return source
    check_count("every", every)
    if fps is not None and not 0 < fps < math.inf:
        raise UserError(f"fps must be positive, got {fps}")
    opened = replace(
        _open(source, fps),
        start=BEGIN if start is None else parse_position(start, "start"),
        end=None if end is None else parse_position(end, "end"),
        every=every,
    )
    for position in (opened.start, opened.end):
        if position is not None and position.frame is None and opened.fps is None:
            raise UserError(
                f"{opened.name}: where {position} lies is not known, as it has no times; give fps or a frame number"
            )
    return opened


def _open(source: SourceLike, fps: float | None) -> Source:
    if isinstance(source, str) and source.startswith(CAMERA):
        return _camera(source, fps)
    if isinstance(source, str | Path):
        return _path(Path(source), fps)
    if isinstance(source, bytes | bytearray | memoryview):
        return _video("video", io.BytesIO(source), fps)
    if isinstance(source, io.RawIOBase):  # such as open(path, "rb", buffering=0)
        return _video("video", io.BufferedReader(source), fps)
    if isinstance(source, io.BufferedIOBase):
        return _video("video", source, fps)
    if isinstance(source, np.ndarray) and source.ndim < 4:
        raise UserError(
            f"an array of shape {source.shape} is one frame; give a list of them, or (T, H, W, 3)"
        )
    if isinstance(source, Sequence) and source and isinstance(source[0], str | Path):
        paths = [Path(str(item)) for item in source]
        return _images(paths[0].parent.name, paths, fps)
    total = len(source) if isinstance(source, Sequence | np.ndarray) else None
    return Source("frames", partial(_array_entries, source, fps), fps, total)


def _path(path: Path, fps: float | None) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"input not found: {path}")
    if path.is_dir() or path.suffix.lower() == ".zip":
        images = list_files(path, IMAGE_SUFFIXES)
        if not images:
            raise FileNotFoundError(
                f"no frames in {path}; expected images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        return _images(path.resolve().name if path.is_dir() else path.stem, images, fps)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _images(path.stem, [path], fps)
    return _video(path.stem, path, fps)


def _video(name: str, file: Path | io.BufferedIOBase, fps: float | None) -> Source:
    if fps is not None:
        raise UserError(f"{name} has a frame rate of its own; fps is for images and arrays")
    with VideoFile(file) as video:
        return Source(name, partial(_video_entries, file), video.fps, video.stated_frames)


def _images(name: str, paths: Sequence[Path], fps: float | None) -> Source:
    stems = tuple(path.stem for path in paths)
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UserError(
            f"{name}: two images are called {twice}, such as 1.jpg and 1.png; rename or remove one"
        )
    return Source(name, partial(_image_entries, paths, fps), fps, len(paths), stems)


def _image_entries(paths: Sequence[Path], fps: float | None) -> Iterator[Entry]:
    for index, path in enumerate(paths):
        yield Entry(index, fps and index / fps, partial(read_rgb, path))


def _array_entries(arrays: Iterable[Any], fps: float | None) -> Iterator[Entry]:
    lasting = isinstance(arrays, Sequence | np.ndarray)  # a generator may fill one buffer again and again
    for index, array in enumerate(arrays):
        yield Entry(index, fps and index / fps, partial(_to_rgb, index, array, copy=not lasting))


def _to_rgb(index: int, array: Any, *, copy: bool) -> np.ndarray:
    try:
        rgb = to_rgb(np.asarray(array))
        return rgb.copy() if copy else rgb
    except ValueError as error:
        raise UserError(f"frame {index}: {error}") from None


def _video_entries(file: Path | io.BufferedIOBase) -> Iterator[Entry]:
    with VideoFile(file) as video:
        while video.advance():
            yield Entry(video.passed - 1, video.time, video.picture)


def _camera(name: str, fps: float | None) -> Source:
    number = name.removeprefix(CAMERA)
    if not (number.isdecimal() and int(number) < CAMERAS):
        raise UserError(f"{name}: a camera is called by its number, such as camera:0, up to {CAMERAS - 1}")
    capture = cv2.VideoCapture(int(number))
    if not capture.isOpened():
        raise OSError(f"{name} cannot be opened; is it connected, and free?")
    stated = capture.get(cv2.CAP_PROP_FPS)
    fps = fps or (stated if stated > 0 else None)
    return Source(name.replace(":", ""), partial(_camera_entries, name, capture), fps)


def _camera_entries(name: str, capture: cv2.VideoCapture) -> Iterator[Entry]:
    """Frames as they come; what nobody takes in time is lost in the camera's driver. Times are the clock's."""
    begin, index = time.monotonic(), 0
    try:
        while True:
            good, bgr = capture.read()
            if not good:
                raise OSError(f"{name} gives no picture after frame {index}")
            yield Entry(index, time.monotonic() - begin, partial(cv2.cvtColor, bgr, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        capture.release()
