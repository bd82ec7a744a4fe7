"""Segment many videos into one folder: resumable, shared out over ranks; a failure costs one video only."""

from __future__ import annotations

import math
import signal
import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from tqdm import tqdm

from hmhi.errors import UserError, check_count, is_out_of_memory
from hmhi.inference.follow import follow
from hmhi.inference.inputs import InputVideo
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.outputs import OutputSettings, ResultWriter, clear_failure, write_failure
from hmhi.inference.positions import parse_position
from hmhi.inference.prompts import MaskUse
from hmhi.inference.results import FrameResult
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.sources import Source
from hmhi.media.names import printable
from hmhi.runtime import distributed
from hmhi.runtime.distributed import Ranks
from hmhi.runtime.interrupt import StopSignal

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
    use_masks: MaskUse = "new"
    """Which masks of a folder count, see `hmhi.inference.prompts.open_masks`."""
    objects: tuple[int, ...] = ()
    """Ids that are followed; empty for all."""

    def __post_init__(self) -> None:
        for name, text in (("start", self.start), ("end", self.end)):
            if text is not None:
                parse_position(text, name)
        check_count("every", self.every)
        if not 0 < self.fps < math.inf:
            raise UserError(f"fps must be positive, got {self.fps}")


@dataclass
class Summary:
    """Names of the videos of a run, by what became of them."""

    finished: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Finished by an earlier run."""
    failed: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    """Those of `failed` that failed by a fault of ours."""


@dataclass(frozen=True)
class _Task:
    video: InputVideo
    source: Source
    writer: ResultWriter


def segment_all(
    segmenter: VideoSegmenter | ObjectSegmenter,
    videos: Sequence[InputVideo],
    selection: Selection,
    outputs: OutputSettings,
    *,
    ranks: Ranks,
    overwrite: bool = False,
    follower: ObjectSegmenter | None = None,
) -> Summary:
    """Segment videos, except those that an earlier run has finished. Every rank must call it.

    Videos are shared out over ranks, the longest first, each to the rank with the least to do. A video that fails
    is reported on stderr at once, leaves a record of why instead of results, and the others go on. A camera is
    recorded until a signal.

    Args:
        segmenter: On this rank's device.
        videos: The same on every rank.
        selection: Which frames.
        outputs: What to write and where.
        ranks: This process's place.
        overwrite: Remove all results that these videos have, and begin anew.
        follower: Carries what a `VideoSegmenter` finds, see `hmhi.inference.follow.follow`.

    Returns:
        The same on every rank.

    Raises:
        Interrupted: By SIGINT or SIGTERM, after the present frame; the video at hand leaves no results.
    """
    summary, tasks = Summary(), {}
    unopened: dict[str, Exception] = {}
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
        except Exception as error:
            unopened[video.name] = error
            if ranks.is_main:
                _note_failure(summary, outputs, video, error)
    if ranks.is_main:
        summary.kept = [name for name, task in tasks.items() if task.writer.done]
    # Rank 0's view counts, as others may see what a third one has finished; nobody begins before it has one.
    lengths = {name: task.source.length or 0 for name, task in tasks.items() if name not in summary.kept}
    names = distributed.gather(deal_out(lengths, ranks.world_size))[0][ranks.rank]

    by_name = {video.name: video for video in videos}
    total = sum(lengths[name] for name in names) or None
    bar = tqdm(total=total, unit="frame", bar_format=BAR, disable=None if ranks.is_main else True)
    with StopSignal() as stop, bar:
        for name in names:
            bar.set_postfix_str(name)
            try:
                if name in unopened:  # on this rank alone
                    raise unopened[name]
                results = _results(segmenter, follower, tasks[name], selection)
                _segment(results, tasks[name], stop, bar)
            except Interrupted:
                raise
            except Exception as error:
                _note_failure(summary, outputs, by_name[name], error)
            else:
                clear_failure(outputs.folder, name)
                summary.finished.append(name)
    parts = distributed.gather(summary)
    return Summary(
        *(
            sorted(name for part in parts for name in getattr(part, kind))
            for kind in ("finished", "kept", "failed", "bugs")
        )
    )


def deal_out(lengths: Mapping[str, int], parts: int) -> list[list[str]]:
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


def _results(
    segmenter: VideoSegmenter | ObjectSegmenter,
    follower: ObjectSegmenter | None,
    task: _Task,
    selection: Selection,
) -> Generator[FrameResult, None, None]:
    video = task.video
    if isinstance(segmenter, VideoSegmenter):
        found = segmenter.stream(task.source, video.flows, scene_cuts=selection.scene_cuts)
        return found if follower is None else follow(found, follower)
    return segmenter.stream(
        task.source,
        video.masks,
        use_masks=selection.use_masks,
        objects=selection.objects,
        merged=video.merged,
    )


def _segment(results: Generator[FrameResult, None, None], task: _Task, stop: StopSignal, bar: tqdm) -> None:
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
        raise UserError(
            f"the results of this name were made from {earlier}, and not from {video.origin}; choose another "
            f"--output, or redo them with --overwrite"
        )


def _note_failure(summary: Summary, outputs: OutputSettings, video: InputVideo, error: Exception) -> None:
    """Say on stderr why a video failed, and leave a record; of a bug of ours, with its traceback."""
    summary.failed.append(video.name)
    trace = None
    if is_out_of_memory(error):
        remedy = "try a smaller --image-size or --short-side, or --precision bf16"
        reason = f"out of memory; {remedy} ({_first_line(error)})"
    elif isinstance(error, UserError | OSError):
        reason = str(error)
    else:
        summary.bugs.append(video.name)
        trace = "".join(traceback.format_exception(error))
        reason = f"a bug in hmhi, not in your input: {type(error).__name__}: {_first_line(error)}"
    record = write_failure(outputs.folder, video, reason, trace)
    tqdm.write(
        f"error: {video.name}: {printable(reason)}" + (f"; {record} has the traceback" if trace else ""),
        file=sys.stderr,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
