"""Read video files frame by frame, from the first on."""

from __future__ import annotations

import io
import logging
import os
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from hmhi.errors import BadFileError
from hmhi.media.files import check_file, check_pixels
from hmhi.media.names import printable

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})

HEAD = 512
"""Bytes of a file by which its container is known."""
_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x00\x00\x01", b"\x00\x00\x00\x01",  # MPEG program stream, bare MPEG, H.264, H.265
    b"FLV\x01", b"OggS", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"YUV4MPEG2 ", b"GIF8",
)  # fmt: skip
_ATOMS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
"""First atoms of MP4 and QuickTime."""
_FLUSHED = 64
"""Frames that a decoder may still hold back where its input breaks off: reordering and its threads' delay."""
_ATTEMPTS = 8
"""Failures in a row after which no further frame is expected of a damaged video."""


def count_frames(path: Path) -> int:
    """Frames of a video file, counted one by one because containers often state a wrong number.

    Raises:
        BadFileError: Not a readable video, or damaged in the middle.
    """
    with VideoFile(path) as video:
        while video.advance():
            pass
        return video.passed


def read_frame(path: Path, index: int) -> np.ndarray:
    """Frame number `index` of a video file, (H, W, 3) uint8 RGB; quick where frames are read in order.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a readable video, or it ends before the frame.
    """
    status = check_file(path)
    return _cached_video(path, os.getpid(), status.st_size, status.st_mtime_ns, status.st_ino).read(index)


class VideoFile:
    """A video file, read from its first frame on; frames come turned as its metadata say.

    Seeking in compressed video is not exact, so it only ever goes forward. A damaged frame is an error where
    the decoder reports it; many decoders paint over small damage, which nobody can see from outside. Where the
    size changes in the middle, OpenCV 5 goes on at the first size; older ones give frames of the new size.

    Args:
        path: A file of any container that OpenCV's FFmpeg reads, or an open stream of such bytes, read from its
            beginning. Playlists and other files that name further files or addresses are no videos.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not a video, of more than `hmhi.media.files.MAX_PIXELS` a frame, or its name is no UTF-8; the
            methods raise it, too.
    """

    def __init__(self, path: Path | io.BufferedIOBase) -> None:
        self.name = str(path) if isinstance(path, Path) else "the video stream"
        """For messages."""
        self.passed = 0
        """Frames that `advance` has gone to; the present one has the number ``passed - 1``."""
        self._reached: float | None = None  # time of the last frame
        if isinstance(path, io.BufferedIOBase):
            path.seek(0)
            head = path.read(HEAD)
            path.seek(0)
        else:
            head = _read_head(path)
        if not is_container(head):
            raise BadFileError(f"{self.name}: not a video file (or of an unknown type)")
        if isinstance(path, io.BufferedIOBase):
            self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [])  # type: ignore[call-overload]
        else:  # an absolute path is no address: "http:host.mp4" would be one
            self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise BadFileError(f"{self.name}: not a video that OpenCV can read")
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        check_pixels(Path(self.name), *(int(self._capture.get(side)) for side in sides))

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
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height, in frames turned as they come; 1 where the file does not say."""
        sides = [int(self._capture.get(side)) for side in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)]
        aspect = Fraction(*sides) if min(sides) > 0 else Fraction(1)
        return 1 / aspect if self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90 else aspect

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
            self._reached = self.time
            return True
        later = self._frames_behind_damage()
        missing = (self.stated_frames or 0) - self.passed
        # A file that breaks off gives back what its decoder held, and then stays far behind its promise.
        if later and missing - later <= later:
            raise BadFileError(
                f"{self.name}: frame {self.passed} cannot be decoded, though later ones can; the file is damaged"
            )
        if missing > max(2, self.passed // 20) and not self._lasts_as_stated():
            log.warning(
                "%s ends after %d of the %d frames that it states; it may be cut off",
                self.name, self.passed, self.passed + missing,
            )  # fmt: skip
        return False

    def picture(self) -> np.ndarray:
        """The present frame, (H, W, 3) uint8 RGB.

        Raises:
            BadFileError: It cannot be decoded.
        """
        good, bgr = self._capture.retrieve()
        if not good:
            raise BadFileError(f"{self.name}: frame {self.passed - 1} cannot be decoded")
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def _lasts_as_stated(self) -> bool:
        """Whether the last frame stands where the file should end; a varying rate makes its frames hard to count."""
        if self._reached is None or not self.fps or not self.stated_frames:
            return False
        length = self.stated_frames / self.fps
        return length - self._reached <= max(0.05 * length, 2 / self.fps)

    def _frames_behind_damage(self) -> int:
        found = failures = 0
        while failures < _ATTEMPTS and found <= _FLUSHED:
            if self._capture.grab():
                found, failures = found + 1, 0
            else:
                failures += 1
        return found


class _VideoReader:
    """Reads the frames of a video file by number; going back starts it anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._video = VideoFile(path)
        self._last: tuple[int, np.ndarray] | None = None

    def read(self, index: int) -> np.ndarray:
        if self._last is None or self._last[0] != index:
            if index < self._video.passed:
                self._video.close()
                self._video = VideoFile(self._path)
            while self._video.passed <= index:
                if not self._video.advance():
                    raise BadFileError(
                        f"{self._path}: frame {index} cannot be read; {self._video.passed} frames can"
                    )
            self._last = index, self._video.picture()
        return self._last[1].copy()


@lru_cache(maxsize=4)
def _cached_video(path: Path, pid: int, *identity: int) -> _VideoReader:
    return _VideoReader(path)


def _read_head(path: Path) -> bytes:
    check_file(path)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:  # OpenCV crashes the process on it
        raise BadFileError(f"{printable(str(path))}: the name is no UTF-8; rename the file") from None
    with path.open("rb") as stream:
        return stream.read(HEAD)


def is_container(head: bytes) -> bool:
    """Whether a file begins as containers of video do; FFmpeg's own guess would follow playlists as well."""
    return (
        head.startswith(_SIGNATURES)
        or head[4:8] in _ATOMS
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[0:1] == head[188:189] == b"G"  # MPEG transport stream
        or head[4:5] == head[196:197] == b"G"  # the same with time stamps
    )
