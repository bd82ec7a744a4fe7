"""What inference writes of a video: masks, probabilities, cut-outs, overlay, strip, COCO codes, attention.

A video's results grow in a hidden folder and take their names together, so that a name stands for finished work.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image

from hmhi.inference.inputs import InputVideo
from hmhi.inference.rendered import RenderedVideo
from hmhi.inference.segmenter import FrameResult, VideoSegmenter
from hmhi.inference.sources import Source
from hmhi.media.atomic import write_atomically
from hmhi.media.rle import MaskTrack
from hmhi.viz.attention import MemoryProbe, PixelView
from hmhi.viz.composite import Background
from hmhi.viz.overlay import cut_out, cut_out_for_video, draw_overlay, draw_strip, opacity

log = logging.getLogger(__name__)

# attention first, as results are closed in this order, and whatever befalls the others it must let go of the network
KINDS = {
    "attention": "", "masks": "", "prob": "", "matte": "", "overlay": ".mp4", "strip": ".png", "coco": ".json",
    "alpha_mov": ".mov", "alpha_webm": ".webm", "composite": ".mp4",
}  # fmt: skip
"""Every kind of result -> suffix of its file; one without a suffix is a folder of PNGs, one for each frame except
for ``attention``."""
RECORDS = "sequences"
"""Folder with a record of each finished video."""
PARTIAL = ".partial"
"""Hidden folder in which results grow."""
PALETTE = [0, 0, 0, 128, 0, 0]  # DAVIS: background black, first object dark red
STRIP_PANELS = 5
STRIP_HEIGHT = 240


@dataclass(frozen=True)
class AttentionSettings:
    """Whose attention is drawn."""

    segmenter: VideoSegmenter
    """What segments the videos, not compiled."""
    pixel: tuple[int, int]
    """x and y in the source."""
    frame: int | None = None
    """Number of the frame in the source; None takes the last one that reads the memory."""


@dataclass(frozen=True)
class OutputSettings:
    """Which results are wanted, and how they are drawn."""

    folder: Path
    """Receives ``<kind>/<video>`` for each kind, and ``sequences/<video>.json``."""
    kinds: Collection[str] = ("masks",)
    """Of `KINDS`."""
    threshold: float = 0.5
    """Probability at the edge of the mask, for cut-outs."""
    attention: AttentionSettings | None = None
    """Due where `kinds` has ``attention``."""
    background: Background | None = None
    """Due where `kinds` has ``composite``."""


class ResultWriter:
    """Writes one video's results; they take their final names together, when the ``with`` block ends well.

    Args:
        settings: What to write and where.
        video: What is segmented; gives the results their name, and the overlay its sound.
        source: Its frames, opened.
    """

    def __init__(self, settings: OutputSettings, video: InputVideo, source: Source) -> None:
        self._settings, self._video, self._source = settings, video, source
        self._work = settings.folder / PARTIAL / video.name
        # the record last: once it has its name, the video is done
        self._targets = [self.path(kind) for kind in settings.kinds] + [self.record_path]
        self._outputs: list[Output] = []

    def path(self, kind: str) -> Path:
        """Where a kind of result ends up."""
        return self._settings.folder / kind / f"{self._video.name}{KINDS[kind]}"

    @property
    def record_path(self) -> Path:
        """Where `Record` ends up."""
        return self._settings.folder / RECORDS / f"{self._video.name}.json"

    @property
    def done(self) -> bool:
        """Whether an earlier run finished this video with all that is wanted now."""
        return all(path.exists() for path in self._targets)

    def earlier_source(self) -> str | None:
        """What an earlier run made results of this name from; None if there are none.

        Raises:
            ValueError: Its record is damaged.
        """
        if not self.record_path.exists():
            return None
        return str(read_record(self.record_path)["source"])

    def remove(self) -> None:
        """Remove every kind of result of this video, those too that are not wanted now."""
        for path in (self.record_path, *map(self.path, KINDS)):
            _remove(path)

    def __enter__(self) -> ResultWriter:
        _remove(self._work)  # of a run that was killed
        self._work.mkdir(parents=True)
        record = Record(self._work / RECORDS, self._video, self._source)
        self._outputs = [*(self._open(kind) for kind in self._settings.kinds), record]
        return self

    def write(self, result: FrameResult) -> None:
        """Add a frame."""
        stems = self._source.stems
        stem = stems[result.index] if stems is not None else f"{result.index:05d}"
        for output in self._outputs:
            output.add(result, stem)

    def _open(self, kind: str) -> Output:
        path = self._work / kind
        if kind in ("overlay", "composite", "alpha_mov", "alpha_webm"):
            draw = partial(_rendered, kind, self._settings)
            return RenderedVideo(path, KINDS[kind], self._source, self._video.file, draw)
        if kind == "strip":
            return Strip(path)
        if kind == "coco":
            return Coco(path, self._video.name)
        if kind == "attention":
            assert self._settings.attention is not None
            return Attention(path, self._video.name, self._settings.attention)
        return Pictures(path, partial(_picture, kind, self._settings.threshold))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for output in self._outputs:
                output.close(complete=kind is None)
            if kind is None:
                self._publish()
        finally:
            _remove(self._work)

    def _publish(self) -> None:
        _remove(self.record_path)
        for target in self._targets:
            _remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._work / target.parent.name).rename(target)


class Output(Protocol):
    """One result of a video, growing at a path of its own."""

    def add(self, result: FrameResult, stem: str) -> None:
        """Add a frame; `stem` names it."""

    def close(self, *, complete: bool) -> None:
        """Finish the result, or give it up."""


class Pictures:
    """A folder with a PNG for each frame."""

    def __init__(self, path: Path, draw: Callable[[FrameResult], Image.Image]) -> None:
        self._path, self._draw = path, draw
        path.mkdir()

    def add(self, result: FrameResult, stem: str) -> None:
        """Draw and save a frame."""
        self._draw(result).save(self._path / f"{stem}.png")

    def close(self, *, complete: bool) -> None:
        """Nothing is open."""


class Strip:
    """One picture of a few overlays, evenly spaced over a video of unknown length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[np.ndarray] = []
        self._seen = 0
        self._stride = 1

    def add(self, result: FrameResult, stem: str) -> None:
        """Keep the frame if it may be one of the few."""
        if self._seen % self._stride == 0:
            if len(self._kept) == 4 * STRIP_PANELS:
                self._kept = self._kept[::2]
                self._stride *= 2
            if self._seen % self._stride == 0:
                overlay = draw_overlay(result.frame, result.mask)
                width = max(1, round(overlay.shape[1] * STRIP_HEIGHT / overlay.shape[0]))
                self._kept.append(cv2.resize(overlay, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA))
        self._seen += 1

    def close(self, *, complete: bool) -> None:
        """Draw the picture."""
        if complete and self._kept:
            places = np.linspace(0, len(self._kept) - 1, min(STRIP_PANELS, len(self._kept)))
            row = [self._kept[round(place)] for place in places]
            Image.fromarray(draw_strip([row], STRIP_HEIGHT)).save(self._path, format="png")


class Coco:
    """A JSON document with the masks as run-length codes."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._track = path, MaskTrack(name)

    def add(self, result: FrameResult, stem: str) -> None:
        """Encode a frame."""
        self._track.add(result.mask, stem)

    def close(self, *, complete: bool) -> None:
        """Write the document."""
        if complete:
            self._path.write_text(json.dumps(self._track.document()) + "\n", encoding="utf-8")


class Attention:
    """A folder with pictures of where one pixel of one frame looks, see `hmhi.viz.attention`."""

    def __init__(self, path: Path, name: str, settings: AttentionSettings) -> None:
        self._path, self._name, self._segmenter = path, name, settings.segmenter
        self._stem = ""
        self._probing = ExitStack()
        probe = self._probing.enter_context(MemoryProbe(settings.segmenter.model))
        self._view = PixelView(probe, settings.pixel, settings.frame)
        path.mkdir()

    def add(self, result: FrameResult, stem: str) -> None:
        """Follow the network's step for this frame, which must be its last one."""
        height, width = result.mask.shape
        self._view.follow(result.index, result.frame, self._segmenter.input_size(height, width))
        if self._view.drawn_frame == result.index:
            self._stem = stem

    def close(self, *, complete: bool) -> None:
        """Draw and save the pictures; where there is nothing to draw, say so."""
        with self._probing:
            if not complete:
                return
            try:
                pictures = self._view.draw()
            except ValueError as error:
                log.warning("%s: %s", self._name, error)
                return
            for name, picture in pictures.items():
                Image.fromarray(picture).save(self._path / f"{self._stem}_{name}.png")


class Record:
    """What is worth knowing of a finished video: frames, size, rate, seconds, scene cuts."""

    def __init__(self, path: Path, video: InputVideo, source: Source) -> None:
        self._path = path
        self._began = time.perf_counter()
        self._seconds: Counter[str] = Counter()
        self._values: dict[str, Any] = {
            "name": video.name, "source": video.origin, "fps": source.fps, "size": None, "frames": 0,
            "scene_cuts": [],
        }  # fmt: skip

    def add(self, result: FrameResult, stem: str) -> None:
        """Count a frame."""
        self._values["frames"] += 1
        self._values["size"] = list(result.mask.shape)
        if result.scene_cut:
            self._values["scene_cuts"].append(result.index)
        self._seconds.update(result.seconds)

    def close(self, *, complete: bool) -> None:
        """Write the record."""
        seconds = {"total": time.perf_counter() - self._began, **self._seconds}
        self._values["seconds"] = {stage: round(value, 3) for stage, value in seconds.items()}
        if complete:
            self._path.write_text(json.dumps(self._values, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Read back what `Record` wrote.

    Raises:
        ValueError: The file is damaged; names it.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(f"{path} is damaged; remove it, so that its video is done anew") from None


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask as a palette PNG with the values {0, 1}, in DAVIS's colours.

    Args:
        path: File to write; its folder is made.
        mask: (H, W) bool.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _mask_image(mask).save(path)


def to_levels(prob: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] to uint8, rounded down as the release does."""
    return (prob * 255).astype(np.uint8)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    with write_atomically(path) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def _picture(kind: str, threshold: float, result: FrameResult) -> Image.Image:
    if kind == "masks":
        return _mask_image(result.mask)
    if kind == "prob":
        return Image.fromarray(to_levels(result.prob))
    return Image.fromarray(cut_out(result.frame, result.prob, threshold))


def _rendered(kind: str, settings: OutputSettings, result: FrameResult) -> np.ndarray:
    if kind == "overlay":
        return draw_overlay(result.frame, result.mask)
    if kind == "composite":
        assert settings.background is not None
        return settings.background.draw(result.frame, opacity(result.prob, settings.threshold))
    return cut_out_for_video(result.frame, result.prob, settings.threshold)


def _mask_image(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(PALETTE)
    return image


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
