"""Encode video with PyAV (extra ``video``), whose wheel brings its codecs: H.264, ProRes 4444 and VP9 with alpha.

Colours are BT.709 in limited range, converted so and tagged so: untagged video is shown by guess.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hmhi.errors import UserError

log = logging.getLogger(__name__)

_BT709 = 1  # of primaries, transfer and matrix alike, by ITU-T H.273
_LIMITED = 1  # range of levels, by libavutil's count
_HDR = {16: "pq", 18: "hlg"}  # transfer characteristics, by ITU-T H.273


@dataclass(frozen=True)
class Codec:
    """How pictures are encoded."""

    encoder: str
    pixels: str
    """FFmpeg's name of the pixel format."""
    options: dict[str, str]
    sound: str
    """Encoder of the sound."""
    even: bool
    """Whether sides must be even; an odd one grows by a repeated row or column."""
    alpha: bool


CODECS = {
    "mp4": Codec("libx264", "yuv420p", {"preset": "veryfast", "crf": "20"}, "aac", even=True, alpha=False),
    "mov": Codec("prores_ks", "yuva444p10le", {"profile": "4444"}, "aac", even=False, alpha=True),
    "webm": Codec(
        "libvpx-vp9", "yuva420p",
        {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}, "libopus", even=True, alpha=True,
    ),
}  # fmt: skip
"""By the suffix of the file. ProRes 4444 is for editing, VP9 with alpha for browsers."""


def has_av() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def require_av(purpose: str) -> None:
    """Refuse early where PyAV is not installed.

    Raises:
        UserError: Says what to install.
    """
    if not has_av():
        raise UserError(f"{purpose} needs PyAV: pip install 'hmhi[video]', or pip install 'av>=18'")


def hdr_transfer(path: Path) -> str | None:
    """``pq`` or ``hlg`` where a video file says that its levels are those of HDR; None otherwise, or without PyAV."""
    if not has_av():
        return None
    import av

    try:
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            return _HDR.get(int(container.streams.video[0].codec_context.color_trc))
    except (OSError, ValueError, IndexError):  # whoever reads the frames says what is wrong with the file
        return None


class AvWriter:
    """Writes a video file at a constant rate, with the sound of another file.

    Args:
        path: File to write; its suffix is one of `CODECS`.
        fps: Pictures a second.
        size: Height and width of the pictures.
        sound: File whose first sound track is kept, and whose pixels' aspect; None makes it silent.
        start: Where in that file the video begins, in seconds.

    Raises:
        UserError: PyAV is not installed.
        OSError: It cannot be written, also from the methods.
    """

    def __init__(
        self, path: Path, fps: float, size: tuple[int, int], sound: Path | None = None, start: float = 0.0
    ) -> None:
        require_av(f"{path.suffix} video")
        import av

        codec = CODECS[path.suffix[1:]]
        self._codec, self._size = codec, size
        self._written = 0
        self._rate = Fraction(fps).limit_denominator(1001)  # 29.97 is 30000/1001
        flags = {"movflags": "+faststart"} if path.suffix != ".webm" else {}
        self._container: Any = av.open(str(path.absolute()), "w", options=flags)
        height, width = (side + side % 2 if codec.even else side for side in size)
        stream: Any = self._container.add_stream(codec.encoder, rate=self._rate, options=dict(codec.options))
        stream.width, stream.height, stream.pix_fmt = width, height, codec.pixels
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        context.time_base = 1 / self._rate
        self._stream = stream
        self._sound = None if sound is None else _Sound(sound, start, self._container, codec.sound)
        if self._sound is not None and (aspect := self._sound.pixel_aspect((height, width))) is not None:
            context.sample_aspect_ratio = aspect

    def write(self, picture: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8 RGB, or (H, W, 4) RGBA, not premultiplied, for codecs with alpha."""
        import av

        height, width = self._size
        if self._codec.even:
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture), format="rgba" if self._codec.alpha else "rgb24"
        )
        # swscale's names: matrix 1 is BT.709; range 1 is limited, 2 is full
        frame = frame.reformat(
            format=self._codec.pixels,
            src_colorspace=1,
            dst_colorspace=1,
            src_color_range=2,
            dst_color_range=1,
        )
        frame.color_primaries = frame.color_trc = _BT709
        frame.pts, frame.time_base = self._written, 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self._written += 1
        if self._sound is not None:
            self._sound.write_until(self._written / float(self._rate))

    def close(self) -> None:
        """Finish the file; it can be called again."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode())
            if self._sound is not None:
                self._sound.close()
        finally:
            container.close()


class _Sound:
    """The first sound track of a file, encoded anew along with the pictures."""

    def __init__(self, path: Path, start: float, target: Any, encoder: str) -> None:
        import av

        self._path, self._start, self._target = path, start, target
        self._source: Any = None
        self._stream: Any = None
        self._waiting: Any = None
        try:
            self._source = av.open(str(path.absolute()), options={"protocol_whitelist": "file"})
        except (OSError, ValueError) as error:  # av's errors derive from these
            log.warning("%s: the sound cannot be kept: %s", path, error)
            return
        if not self._source.streams.audio:
            return
        track = self._source.streams.audio[0]
        rate = 48000 if encoder == "libopus" else track.rate
        layout = "mono" if track.channels == 1 else "stereo"
        self._stream = target.add_stream(encoder, rate=rate, layout=layout)
        self._frames = self._decode(track)

    def pixel_aspect(self, size: tuple[int, int]) -> Fraction | None:
        """Width of the source's pixels by their height, turned where pictures of this size are; None if square."""
        streams = self._source.streams.video if self._source is not None else ()
        if not streams or streams[0].sample_aspect_ratio in (None, 0, 1):
            return None
        aspect = Fraction(streams[0].sample_aspect_ratio)
        turned = (streams[0].width > streams[0].height) != (size[1] > size[0])
        return 1 / aspect if turned else aspect

    def write_until(self, seconds: float) -> None:
        """Encode what sounds before a time of the new video."""
        while self._stream is not None:
            if self._waiting is None:
                self._waiting = next(self._frames, None)
            if self._waiting is None or self._waiting.pts >= seconds * self._stream.rate:
                return
            self._target.mux(self._stream.encode(self._waiting))
            self._waiting = None

    def close(self) -> None:
        """Finish the track."""
        if self._stream is not None:
            self._target.mux(self._stream.encode())
        if self._source is not None:
            self._source.close()

    def _decode(self, track: Any) -> Iterator[Any]:
        """Frames from the start on, as the encoder, which must be open, wants them, counted from 0."""
        import av

        rate, context = self._stream.rate, self._stream.codec_context
        resampler = av.AudioResampler(
            context.format.name, context.layout.name, rate, frame_size=context.frame_size or None
        )
        position: int | None = None
        try:
            for frame in self._source.decode(track):
                if frame.time is None or frame.time + frame.samples / frame.rate <= self._start:
                    continue
                if position is None:
                    position = max(0, round((frame.time - self._start) * rate))
                frame.pts = None
                for part in resampler.resample(frame):
                    part.pts, part.time_base = position, Fraction(1, rate)
                    position += part.samples
                    yield part
        except (OSError, ValueError) as error:
            log.warning("%s: the sound ends early: %s", self._path, error)
