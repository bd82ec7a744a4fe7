"""Videos that are drawn from results: overlay, object on another background, object with transparency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from hmhi.inference.results import FrameResult
from hmhi.inference.sources import Source
from hmhi.media.av_out import AvWriter, has_av
from hmhi.media.video_in import VideoFile
from hmhi.media.video_out import VideoWriter, add_sound, ffmpeg
from hmhi.viz.composite import Background
from hmhi.viz.overlay import cut_out_for_video, draw_overlay, opacity

UNKNOWN_FPS = 24.0  # of a source that has no frame rate
MAX_PAUSE = 60.0  # seconds between two frames beyond which time stamps are taken for wrong


class Writer(Protocol):
    """Encodes pictures at a constant rate."""

    def write(self, picture: np.ndarray) -> None:
        """Add a picture."""

    def close(self) -> None:
        """Finish the file."""


class RenderedVideo:
    """A video of drawn pictures, as fast as the source plays, with its sound.

    The rate is constant. Where time stamps run away from it (variable frame rate, a slow camera), pictures are
    repeated or left out, so that it never is more than one picture early or late.

    Args:
        path: File to write, whose name has no suffix while it grows.
        suffix: ``.mp4``, or one of `hmhi.media.av_out.CODECS` with alpha.
        source: What is segmented.
        file: The video file that it is, if it is one; gives the sound and the pixels' aspect.
        draw: The picture of a result, (H, W, 3) uint8 RGB, or (H, W, 4) RGBA for files with alpha.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        source: Source,
        file: Path | None,
        draw: Callable[[FrameResult], np.ndarray],
    ) -> None:
        self._path = path.with_suffix(suffix)  # encoders go by it
        self._final = path
        self._file, self._draw = file, draw
        self._fps = (source.fps or UNKNOWN_FPS) / source.every
        # ffmpeg, where it is there, writes mp4; PyAV writes all else, and stands in for a missing ffmpeg
        self._by_av = suffix != ".mp4" or (ffmpeg() is None and has_av())
        self._writer: Writer | None = None
        self._last: np.ndarray | None = None
        self._written = 0
        self._start: float | None = None
        self._shift = 0.0  # of time stamps that jumped

    def add(self, result: FrameResult, stem: str) -> None:
        """Draw and encode a frame."""
        picture = self._draw(result)
        if self._writer is None:
            self._start = result.time
            self._writer = self._open((picture.shape[0], picture.shape[1]))
        late = self._late(result.time)
        if self._last is not None:
            for _ in range(int(late)):
                self._encode(self._last)
        if late > -1:
            self._encode(picture)
        self._last = picture

    def _open(self, size: tuple[int, int]) -> Writer:
        if self._by_av:
            return AvWriter(self._path, self._fps, size, self._file, self._start or 0)
        if self._file is None:
            return VideoWriter(self._path, self._fps, size)
        with VideoFile(self._file) as video:
            return VideoWriter(self._path, self._fps, size, video.pixel_aspect)

    def _late(self, moment: float | None) -> float:
        """How many pictures are missing before a frame with this time stamp."""
        if moment is None or self._start is None:
            return 0
        late = (moment - self._start - self._shift) * self._fps - self._written
        if abs(late) > MAX_PAUSE * self._fps:
            self._shift += late / self._fps
            return 0
        return late

    def _encode(self, picture: np.ndarray) -> None:
        assert self._writer is not None
        self._writer.write(picture)
        self._written += 1

    def close(self, *, complete: bool) -> None:
        """Finish the video and add the sound."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError:
            if complete:
                raise
        if not complete:
            return
        if self._file is not None and not self._by_av and ffmpeg() is not None:
            add_sound(self._path, self._file, self._start or 0, self._written / self._fps)
        self._path.rename(self._final)


def draw_objects(result: FrameResult, *, by_id: bool) -> np.ndarray:
    """The frame with its objects drawn in, (H, W, 3) uint8; with a colour for each id, or one for all."""
    return draw_overlay(result.frame, result.labels if by_id else result.mask)


def draw_composite(result: FrameResult, *, threshold: float, background: Background) -> np.ndarray:
    """All objects before a background, (H, W, 3) uint8."""
    return background.draw(result.frame, opacity(result.prob, threshold))


def draw_cut_out(result: FrameResult, *, threshold: float) -> np.ndarray:
    """All objects cut out for a video with transparency, (H, W, 4) uint8."""
    return cut_out_for_video(result.frame, result.prob, threshold)
