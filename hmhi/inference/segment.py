"""Segment many videos into one folder: resumable, shared out over ranks, and a failure costs one video only."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hmhi.inference.inputs import Inputs, InputVideo
from hmhi.inference.outputs import (
    KINDS,
    PARTIAL,
    RECORDS,
    OutputSettings,
    ResultWriter,
    read_record,
    write_json,
)
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.sources import Source, parse_position
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.runtime.interrupt import StopSignal

RECORD = "infer.json"
BAR = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} frames, {elapsed} < {remaining}, {rate_noinv_fmt}{postfix}"


class Interrupted(Exception):
    """SIGINT or SIGTERM asked to stop; finished videos are kept.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@dataclass(frozen=True)
class Selection:
    """Which frames of each video are segmented, see `hmhi.inference.sources.open_source`."""

    start: str | None = None
    end: str | None = None
    every: int = 1
    fps: float = 24.0
    """Rate of frames that are files, which have none of their own."""
    scene_cuts: bool = False
    """Begin anew at scene cuts."""

    def __post_init__(self) -> None:
        for name, text in (("start", self.start), ("end", self.end)):
            if text is not None:
                parse_position(text, name)
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, got {self.every}")
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be positive, got {self.fps}")


@dataclass
class Summary:
    """What a run has done."""

    finished: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Finished by an earlier run."""
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    video: InputVideo
    source: Source
    writer: ResultWriter


def segment_all(
    segmenter: VideoSegmenter,
    videos: Sequence[InputVideo],
    selection: Selection,
    outputs: OutputSettings,
    *,
    ranks: Ranks,
    overwrite: bool = False,
) -> Summary:
    """Segment videos, except those that an earlier run has finished. Every rank must call it.

    Videos are shared out over ranks, the longest first, each to the rank with the least to do. A video that fails
    is reported on stderr at once and leaves no results; the others go on. A camera is recorded until a signal.

    Args:
        segmenter: On this rank's device.
        videos: The same on every rank.
        selection: Which frames.
        outputs: What to write and where.
        ranks: This process's place.
        overwrite: Remove all results that these videos have, and begin anew.

    Returns:
        The same on every rank.

    Raises:
        Interrupted: By SIGINT or SIGTERM, after the present frame; the video at hand leaves no results.
    """
    summary, tasks, failures = Summary(), {}, {}
    for video in videos:
        try:
            source = video.open(
                start=selection.start, end=selection.end, every=selection.every, fps=selection.fps
            )
            writer = ResultWriter(outputs, video, source)
            if not overwrite:
                _check_origin(writer, video)
            elif ranks.is_main:
                # All at once: continued after an interruption, the rest must not pass for finished.
                writer.remove()
            tasks[video.name] = _Task(video, source, writer)
        except (ValueError, OSError) as error:
            failures[video.name] = error
            if ranks.is_main:
                _report(video, error)
                summary.failed.append(video.name)
    if ranks.is_main:
        summary.kept = [name for name, task in tasks.items() if task.writer.done]
    # Rank 0's view counts, as others may see what a third one has finished; nobody begins before it has one.
    lengths = {name: task.source.length or 0 for name, task in tasks.items() if name not in summary.kept}
    names = distributed.gather(share(lengths, ranks.world_size))[0][ranks.rank]

    by_name = {video.name: video for video in videos}
    total = sum(lengths[name] for name in names) or None
    bar = tqdm(total=total, unit="frame", bar_format=BAR, disable=None if ranks.is_main else True)
    with StopSignal() as stop, bar:
        for name in names:
            bar.set_postfix_str(name)
            try:
                if name in failures:  # on this rank alone
                    raise failures[name]
                _segment(segmenter, tasks[name], selection, stop, bar)
                summary.finished.append(name)
            except (ValueError, OSError, torch.OutOfMemoryError) as error:
                _report(by_name[name], error)
                summary.failed.append(name)
    parts = distributed.gather(summary)
    return Summary(
        *(
            sorted(name for part in parts for name in getattr(part, kind))
            for kind in ("finished", "kept", "failed")
        )
    )


def share(lengths: Mapping[str, int], parts: int) -> list[list[str]]:
    """Deal names out so that the sums of their lengths are close: the longest first, to whoever has least.

    Each part keeps the order of the whole.
    """
    dealt: list[set[str]] = [set() for _ in range(parts)]
    loads = [0] * parts
    for name in sorted(lengths, key=lambda name: -lengths[name]):
        least = min(range(parts), key=lambda part: (loads[part], len(dealt[part])))
        dealt[least].add(name)
        loads[least] += lengths[name]
    return [[name for name in lengths if name in names] for names in dealt]


def check_output(folder: Path, inputs: Inputs) -> None:
    """Refuse to write where the input lies.

    Raises:
        ValueError: The folder lies in the input, or the input among its results.
    """
    place = folder.resolve()
    for read in inputs.folders:
        if place == read.resolve() or read.resolve() in place.parents:
            raise ValueError(f"--output {folder} lies inside the input {read}; choose a folder outside it")
    results = [place / kind for kind in (*KINDS, RECORDS, PARTIAL)]
    for video in inputs.videos:
        origin = Path(video.origin)
        if origin == place or any(result == origin or result in origin.parents for result in results):
            raise ValueError(
                f"the input {origin} lies among the results in --output {folder}; choose another folder"
            )


def check_settings(folder: Path, settings: Mapping[str, Any], redone: Collection[str] = ()) -> None:
    """Refuse to mix results of different settings in one folder.

    Args:
        folder: The folder of results.
        settings: Those of this run.
        redone: Names of videos whose results this run begins anew. Where there are no others, any settings do.

    Raises:
        ValueError: The folder's record names other settings, or is damaged.
    """
    record = folder / RECORD
    others = {path.stem for path in (folder / RECORDS).glob("*.json")} - set(redone)
    if not record.exists() or (redone and not others):
        return
    remedy = "choose another --output, or redo all its videos with --overwrite"
    try:
        before = dict(json.loads(record.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(
            f"{record} is damaged, so nobody knows how its results were made; {remedy}"
        ) from None
    changed = [key for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise ValueError(f"{folder} holds results made with another {', '.join(changed)}; {remedy}")


def write_record(folder: Path, header: Mapping[str, Any]) -> None:
    """Write ``infer.json``: a header, and what is known of each finished video in the folder.

    Args:
        folder: The folder of results.
        header: Where the input lies, and the settings.

    Raises:
        ValueError: A video's record is damaged.
    """
    records = sorted((folder / RECORDS).glob("*.json"))
    sequences = [read_record(path) for path in records]
    write_json(folder / RECORD, {**header, "sequences": sequences})
    partial = folder / PARTIAL
    if partial.is_dir() and not any(partial.iterdir()):
        partial.rmdir()


def _segment(
    segmenter: VideoSegmenter, task: _Task, selection: Selection, stop: StopSignal, bar: tqdm
) -> None:
    results = segmenter.stream(task.source, task.video.flows, scene_cuts=selection.scene_cuts)
    with task.writer, closing(results):
        for result in results:
            task.writer.write(result)
            bar.update()
            if stop.number and task.video.live:
                return
            if stop.number:
                raise Interrupted(stop.number)


def _check_origin(writer: ResultWriter, video: InputVideo) -> None:
    earlier = writer.earlier_source()
    if earlier not in (None, video.origin):
        raise ValueError(
            f"the results of this name were made from {earlier}, and not from {video.origin}; choose another "
            f"--output, or redo them with --overwrite"
        )


def _report(video: InputVideo, error: Exception) -> None:
    if isinstance(error, torch.OutOfMemoryError):
        error = ValueError("the GPU's memory is too small; try a smaller --image-size, or --precision bf16")
    name = "" if video.name in str(error) else f"{video.name}: "
    tqdm.write(f"error: {name}{error}", file=sys.stderr)
