"""The results of a video on disk: they grow in a hidden folder and take their names together.

So a name stands for finished work. `hmhi.inference.kinds` has each kind.
"""

from __future__ import annotations

import errno
import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from hmhi.errors import UserError
from hmhi.inference.inputs import InputVideo
from hmhi.inference.kinds import (
    Attention,
    AttentionSettings,
    Coco,
    Masks,
    Output,
    Pictures,
    Strip,
    VideoRecord,
    draw_levels,
    draw_matte,
    read_video_record,
)
from hmhi.inference.prompts import open_masks
from hmhi.inference.rendered import (
    RenderedVideo,
    draw_composite,
    draw_cut_out,
    draw_objects,
)
from hmhi.inference.results import FrameResult
from hmhi.inference.sources import Source
from hmhi.media.atomic import write_json
from hmhi.media.masks import PALETTE
from hmhi.viz.composite import Background

log = logging.getLogger(__name__)

KINDS = {
    "attention": "", "masks": "", "prob": "", "matte": "", "overlay": ".mp4", "strip": ".png", "coco": ".json",
    "alpha_mov": ".mov", "alpha_webm": ".webm", "composite": ".mp4",
}  # fmt: skip
"""Every kind of result -> suffix of its file; one without a suffix is a folder of PNGs, one for each frame except
for ``attention``."""
RECORDS = "sequences"
"""Folder with a record of each finished video."""
FAILURES = "failed"
"""Folder with a record of each video that failed."""
PARTIAL = ".partial"
"""Hidden folder in which results grow."""


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
    by_id: bool = False
    """Whether objects have ids that somebody gave them: then ``prob`` and ``matte`` have a folder for each id, and
    overlays a colour. Otherwise there is one, the salient object."""


class ResultWriter:
    """Writes one video's results; they take their final names together, when the ``with`` block ends well.

    Args:
        settings: What to write and where; no other process may write there meanwhile
            (`hmhi.runtime.lock.hold_folder`).
        video: What is segmented; gives the results their name, and the overlay its sound.
        source: Its frames, opened.
    """

    def __init__(self, settings: OutputSettings, video: InputVideo, source: Source) -> None:
        self._settings, self._video, self._source = settings, video, source
        self._work = settings.folder / PARTIAL / video.name
        # the record last: once it has its name, the video is done
        self._targets = [self.path(kind) for kind in settings.kinds] + [self.record_path]
        self._outputs: list[Output] = []
        self._exits = ExitStack()

    def path(self, kind: str) -> Path:
        """Where a kind of result ends up."""
        return self._settings.folder / kind / f"{self._video.name}{KINDS[kind]}"

    @property
    def record_path(self) -> Path:
        """Where the `VideoRecord` ends up."""
        return self._settings.folder / RECORDS / f"{self._video.name}.json"

    @property
    def done(self) -> bool:
        """Whether an earlier run finished this video with all that is wanted now."""
        return all(path.exists() for path in self._targets)

    def earlier_source(self) -> str | None:
        """What an earlier run made results of this name from; None if there are none.

        Raises:
            UserError: Its record is damaged.
        """
        if not self.record_path.exists():
            return None
        return str(read_video_record(self.record_path)["source"])

    def remove(self) -> None:
        """Remove every kind of result of this video, those too that are not wanted now."""
        for path in (self.record_path, *map(self.path, KINDS)):
            remove(path)

    def __enter__(self) -> ResultWriter:
        if self._work.parent.is_symlink():
            raise UserError(f"{self._work.parent} is a link; results grow there and nowhere else: remove it")
        remove(self._work)  # of a run that was killed
        self._work.mkdir(parents=True)
        with ExitStack() as stack:
            stack.callback(remove, self._work)
            stack.push(self._publish)
            for kind in (RECORDS, *self._settings.kinds):
                output = self._open(kind)
                self._outputs.append(output)
                stack.push(partial(_close, output))
            self._exits = stack.pop_all()  # run from the last to the first
        return self

    def write(self, result: FrameResult) -> None:
        """Add a frame."""
        stem = self._source.stem(result.index)
        for output in self._outputs:
            output.add(result, stem)

    def _open(self, kind: str) -> Output:
        path, settings = self._work / kind, self._settings
        if kind == "masks":
            return Masks(path, self._palette(), self._video.listed)
        if kind == "prob":
            return Pictures(path, draw_levels, by_id=settings.by_id)
        if kind == "matte":
            draw = partial(draw_matte, threshold=settings.threshold)
            return Pictures(path, draw, by_id=settings.by_id)
        if kind in ("overlay", "composite", "alpha_mov", "alpha_webm"):
            return RenderedVideo(path, KINDS[kind], self._source, self._video.file, self._drawing(kind))
        if kind == "strip":
            return Strip(path, self._drawing("overlay"))
        if kind == "coco":
            return Coco(path, self._video.name, "object" if settings.by_id else "salient object")
        if kind == "attention":
            assert settings.attention is not None
            return Attention(path, self._video.name, settings.attention)
        assert kind == RECORDS
        return VideoRecord(path, self._video, self._source)

    def _palette(self) -> Sequence[int]:
        """Colours of the masks that were given."""
        if self._video.masks is None:
            return PALETTE
        return open_masks(self._video.masks, self._source).palette

    def _drawing(self, kind: str) -> Callable[[FrameResult], np.ndarray]:
        """What draws the pictures of a video."""
        settings = self._settings
        if kind == "overlay":
            return partial(draw_objects, by_id=settings.by_id)
        if kind == "composite":
            assert settings.background is not None
            return partial(draw_composite, threshold=settings.threshold, background=settings.background)
        return partial(draw_cut_out, threshold=settings.threshold)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def _publish(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            return
        remove(self.record_path)
        for target in self._targets:
            remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(self._work / target.parent.name, target)


def write_failure(folder: Path, video: InputVideo, reason: str, trace: str | None) -> Path:
    """Leave a record of why a video failed, ``failed/<video>.json``; `trace` is the traceback of a bug."""
    path = folder / FAILURES / f"{video.name}.json"
    write_json(path, {"name": video.name, "source": video.origin, "error": reason, "traceback": trace})
    return path


def clear_failure(folder: Path, name: str) -> None:
    """Remove the record of an earlier failure, if there is one."""
    (folder / FAILURES / f"{name}.json").unlink(missing_ok=True)


def _close(
    output: Output, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    try:
        output.close(complete=kind is None)
    except Exception:
        if kind is None:
            raise
        log.warning("a result that was given up could not be closed", exc_info=True)


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    """Give a finished result its name, also where its folder is a link to another disk; whole or not at all."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        growing = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            shutil.move(source, growing)
            growing.rename(target)
        except BaseException:
            remove(growing)
            raise
