"""The kinds of results of a video: each grows at a path of its own, frame by frame."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from PIL import Image

from hmhi.errors import UserError
from hmhi.inference.inputs import InputVideo
from hmhi.inference.results import FrameResult, to_levels
from hmhi.inference.sources import Source
from hmhi.media.av_out import hdr_transfer
from hmhi.media.files import read_text
from hmhi.media.masks import PALETTE, write_labels
from hmhi.media.rle import MaskTrack
from hmhi.viz.attention import PixelView
from hmhi.viz.overlay import cut_out, draw_strip
from hmhi.viz.probe import MemoryProbe

if TYPE_CHECKING:
    from hmhi.inference.segmenter import VideoSegmenter

log = logging.getLogger(__name__)

STRIP_PANELS = 5
STRIP_HEIGHT = 240


class Output(Protocol):
    """One kind of result of a video."""

    def add(self, result: FrameResult, stem: str) -> None:
        """Add a frame; `stem` names it."""

    def close(self, *, complete: bool) -> None:
        """Finish the result, or give it up; called once, whatever happened before."""


class Masks:
    """A folder with a palette PNG of object ids for each frame.

    Args:
        path: The folder.
        palette: Colour of each id, see `hmhi.media.masks.PALETTE`.
        listed: Stems of the frames that are saved; None for all.
    """

    def __init__(
        self, path: Path, palette: Sequence[int] = PALETTE, listed: Collection[str] | None = None
    ) -> None:
        self._path, self._palette, self._listed = path, palette, listed
        path.mkdir()

    def add(self, result: FrameResult, stem: str) -> None:
        """Save a frame, if it is wanted."""
        if self._listed is None or stem in self._listed:
            write_labels(self._path / f"{stem}.png", result.labels, self._palette)

    def close(self, *, complete: bool) -> None:
        """Nothing is open."""


class Pictures:
    """A folder with a picture of each object in each frame.

    Args:
        path: The folder.
        draw: Result and object id to a picture.
        by_id: Whether each object has a folder of its own, named after its id.
    """

    def __init__(self, path: Path, draw: Callable[[FrameResult, int], np.ndarray], *, by_id: bool) -> None:
        self._path, self._draw, self._by_id = path, draw, by_id
        path.mkdir()

    def add(self, result: FrameResult, stem: str) -> None:
        """Draw and save a frame."""
        for object_id in result.ids:
            folder = self._path / str(object_id) if self._by_id else self._path
            folder.mkdir(exist_ok=True)
            Image.fromarray(self._draw(result, object_id)).save(folder / f"{stem}.png")

    def close(self, *, complete: bool) -> None:
        """Nothing is open."""


def draw_levels(result: FrameResult, object_id: int) -> np.ndarray:
    """Probability of an object as (H, W) uint8 levels."""
    return to_levels(result.prob_of(object_id))


def draw_matte(result: FrameResult, object_id: int, *, threshold: float) -> np.ndarray:
    """An object cut out, (H, W, 4) uint8 RGBA."""
    return cut_out(result.frame, result.prob_of(object_id), threshold)


class Strip:
    """One picture of a few overlays, evenly spaced over a video of unknown length.

    Args:
        path: The picture.
        draw: The overlay of a result, (H, W, 3) uint8 RGB.
    """

    def __init__(self, path: Path, draw: Callable[[FrameResult], np.ndarray]) -> None:
        self._path, self._draw = path, draw
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
                overlay = self._draw(result)
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
    """A JSON document with the masks as run-length codes, one annotation for each object.

    Args:
        path: The document.
        name: Of the video.
        category: What the objects are.
    """

    def __init__(self, path: Path, name: str, category: str) -> None:
        self._path, self._track = path, MaskTrack(name, category)

    def add(self, result: FrameResult, stem: str) -> None:
        """Encode a frame."""
        self._track.add({object_id: result.mask_of(object_id) for object_id in result.ids}, stem)

    def close(self, *, complete: bool) -> None:
        """Write the document."""
        if complete:
            self._path.write_text(json.dumps(self._track.document()) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class AttentionSettings:
    """Whose attention is drawn."""

    segmenter: VideoSegmenter
    """What segments the videos, not compiled."""
    pixel: tuple[int, int]
    """x and y in the source."""
    frame: int | None = None
    """Number of the frame in the source; None takes the last one that reads the memory."""


class Attention:
    """A folder with pictures of where one pixel of one frame looks, see `hmhi.viz.attention`."""

    def __init__(self, path: Path, name: str, settings: AttentionSettings) -> None:
        self._path, self._name, self._segmenter = path, name, settings.segmenter
        self._stem = ""
        path.mkdir()
        self._probing = ExitStack()
        probe = self._probing.enter_context(MemoryProbe(settings.segmenter.model))
        self._view = PixelView(probe, settings.pixel, settings.frame)

    def add(self, result: FrameResult, stem: str) -> None:
        """Follow the network's step for this frame, which must be its last one."""
        height, width = result.labels.shape
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
            except UserError as error:
                log.warning("%s: %s", self._name, error)
                return
            for name, picture in pictures.items():
                Image.fromarray(picture).save(self._path / f"{self._stem}_{name}.png")


class VideoRecord:
    """What is worth knowing of a finished video: frames, size, rate, seconds, scene cuts, and the given masks."""

    def __init__(self, path: Path, video: InputVideo, source: Source) -> None:
        self._path = path
        self._first: dict[int, str] = {}  # object id -> stem of the frame that it was first given at
        self._corrected: list[str] = []
        self._empty = 0  # frames before the first mask
        self._began = time.perf_counter()
        self._seconds: Counter[str] = Counter()
        self._values: dict[str, Any] = {
            "name": video.name, "source": video.origin, "fps": source.fps, "size": None, "frames": 0,
            "scene_cuts": [], "hdr": None if video.file is None else hdr_transfer(video.file),
        }  # fmt: skip

    def add(self, result: FrameResult, stem: str) -> None:
        """Count a frame."""
        self._values["frames"] += 1
        self._values["size"] = list(result.labels.shape)
        if result.scene_cut:
            self._values["scene_cuts"].append(result.index)
        self._seconds.update(result.seconds)
        known = [number for number in result.given if number in self._first]
        self._first |= {number: stem for number in result.given if number not in known}
        self._corrected += [stem] if known else []
        self._empty += not self._first

    def _given(self) -> dict[str, Any]:
        """Where each object was given; nothing where no object was, as of networks that take no masks."""
        if not self._first:
            return {}
        notes = []
        if self._empty:
            notes.append(f"the first {self._empty} frames have no mask: they are background")
        if self._corrected:
            notes.append("given masks corrected later frames: this is no benchmark run")
        return {"objects": self._first, "corrected": self._corrected, "notes": notes}

    def close(self, *, complete: bool) -> None:
        """Write the record."""
        seconds = {"total": time.perf_counter() - self._began, **self._seconds}
        self._values["seconds"] = {stage: round(value, 3) for stage, value in seconds.items()}
        self._values |= self._given()
        if complete:
            self._path.write_text(json.dumps(self._values, indent=2) + "\n", encoding="utf-8")


def read_video_record(path: Path) -> dict[str, Any]:
    """Read back the record of a video.

    Raises:
        UserError: The file is damaged; names it.
    """
    try:
        record = json.loads(read_text(path))
    except ValueError:
        record = None
    if not (isinstance(record, dict) and {"name", "source"} <= record.keys()):
        raise UserError(f"{path} is damaged; remove it, so that its video is done anew")
    return record
