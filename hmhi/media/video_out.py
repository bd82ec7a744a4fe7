"""Encode pictures as an mp4 video, and give it the sound of another file.

With ffmpeg the video is H.264 in the colours of BT.709, converted and tagged so, which browsers play. Without it
OpenCV writes MPEG-4 part 2, which they do not play, in the colours of BT.601 and without a tag: players that take
such a file for BT.709, as many do from 720 lines on, show saturated colours up to 40 of 255 levels off.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from hmhi.errors import BadFileError
from hmhi.media.video_in import count_frames

log = logging.getLogger(__name__)

QUALITY = 20  # x264's constant rate factor: lines and texture stay clean

_LOCAL = ["-protocol_whitelist", "file"]
"""Of an input: what it names is a file, and so is all that it refers to."""

# Players guess the matrix of untagged video from its size; ffmpeg converts RGB by that of BT.601 unless told.
_SCALE = "scale=out_color_matrix=bt709:out_range=tv"
_BT709 = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]

_SQUARE = Fraction(1)


@cache
def ffmpeg() -> str | None:
    """Path of the ffmpeg program; None where there is none."""
    return shutil.which("ffmpeg")


class VideoWriter:
    """Writes an mp4 file at a constant rate.

    Odd sizes grow by one repeated row or column, as H.264's usual colour format has none.

    Args:
        path: File to write, ending in ``.mp4``; its folder must exist.
        fps: Pictures a second.
        size: Height and width of the pictures.
        aspect: Width of a pixel by its height; kept where ffmpeg writes.

    Raises:
        OSError: It cannot be written, also from the methods.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], aspect: Fraction = _SQUARE) -> None:
        self._path = path
        self._size = size
        height, width = (length + length % 2 for length in size)
        self._process: subprocess.Popen[bytes] | None = None
        self._capture: cv2.VideoWriter | None = None
        self._written = 0
        if _has_h264():
            # A pipe could fill up and stall the program.
            self._messages = tempfile.TemporaryFile()  # noqa: SIM115
            rate = str(Fraction(fps).limit_denominator(1001))  # 29.97 is 30000/1001
            raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
            shape = ["-vf", f"{_SCALE},setsar={aspect.numerator}/{aspect.denominator}"]
            encoder = ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(QUALITY), "-pix_fmt", "yuv420p"]
            self._process = subprocess.Popen(
                [
                    *_command(),
                    *raw,
                    *shape,
                    *_BT709,
                    *encoder,
                    "-movflags",
                    "+faststart",
                    str(path.resolve()),
                ],
                stdin=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        else:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._capture = cv2.VideoWriter(str(path), code, fps, (width, height))
            if not self._capture.isOpened():
                raise OSError(f"OpenCV cannot write the video {path}")

    def write(self, picture: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8 RGB."""
        height, width = self._size
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._capture is not None:
            self._capture.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            self._written += 1
            return
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(even.tobytes())
        except BrokenPipeError:
            self.close()
            raise OSError(f"ffmpeg stopped while it wrote {self._path}") from None

    def close(self) -> None:
        """Finish the file; it can be called again."""
        if self._capture is not None and self._capture.isOpened():
            self._capture.release()
            self._check_count()
        if self._process is None or self._process.stdin is None or self._process.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):  # its exit code says so too
            self._process.stdin.close()
        if self._process.wait() != 0:
            self._messages.seek(0)
            raise OSError(f"ffmpeg cannot write {self._path}: {_last_line(self._messages.read())}")

    def _check_count(self) -> None:
        """OpenCV's writer keeps a full disk to itself: what it wrote is counted."""
        try:
            found = count_frames(self._path) if self._written else 0
        except (BadFileError, FileNotFoundError):
            found = 0
        if found != self._written:
            raise OSError(
                f"{self._path}: {found} of {self._written} frames were written; is the disk full? "
                f"ffmpeg, where it is installed, says what failed"
            )


def add_sound(video: Path, source: Path, start: float, seconds: float) -> None:
    """Give a silent mp4 file the first sound track of another file, if that has one.

    The track is encoded as AAC. Where ffmpeg cannot read it, a warning is logged and the video stays silent.

    Args:
        video: File to change; it is replaced whole or not at all.
        source: File with the sound.
        start: Where in the source the video begins, in seconds.
        seconds: Length of the video.
    """
    joined = video.with_name(f"sound-{video.name}")
    sound = ["-ss", f"{start:.6f}", "-t", f"{seconds:.6f}", "-vn", *_LOCAL, "-i", str(source.resolve())]
    done = subprocess.run(
        [
            *_command(), *_LOCAL, "-i", str(video.resolve()), *sound, "-map", "0:v:0", "-map", "1:a:0?",
            "-map_chapters", "-1", "-c:v", "copy", "-c:a", "aac", "-movflags", "+faststart", str(joined.resolve()),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True,
    )  # fmt: skip
    if done.returncode == 0:
        joined.replace(video)
    else:
        joined.unlink(missing_ok=True)
        log.warning("%s: the sound cannot be kept: %s", source, _last_line(done.stderr))


def _command() -> list[str]:
    program = ffmpeg()
    assert program is not None
    return [program, "-hide_banner", "-loglevel", "error", "-y"]


@cache
def _has_h264() -> bool:
    """Whether ffmpeg is there with the encoder, which some builds lack for its licence."""
    program = ffmpeg()
    if program is None:
        return False
    listed = subprocess.run(
        [program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    )
    return " libx264 " in listed.stdout


def _last_line(messages: bytes) -> str:
    lines = messages.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it gave no reason"
