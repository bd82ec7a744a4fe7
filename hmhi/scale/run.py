"""Work through a shard of a list of videos, so that any end of the process costs the video at hand alone.

A shard writes two files, line by line. ``masks/<shard>.jsonl`` holds the records; ``status/<shard>.jsonl`` says of
each video what became of it and where its record lies. A video is done when its status line is there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hmhi.errors import UserError
from hmhi.media.atomic import write_json
from hmhi.runtime.worker import (
    TaskRefusedError,
    TaskStoppedError,
    TimeLimitError,
    WorkerDiedError,
    WorkerProcess,
)
from hmhi.scale.shards import Shard
from hmhi.scale.video import SegmentVideo, failure

log = logging.getLogger(__name__)

STATUS, MASKS, SETTINGS = "status", "masks", "scale.json"


@dataclass(frozen=True)
class Network:
    """What `SegmentVideo` is built from."""

    checkpoint: Path | None = None
    device: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Counts:
    """What a run has done."""

    done: int = 0
    failed: int = 0
    kept: int = 0
    """Finished by an earlier run."""
    frames: int = 0
    stopped: bool = False


def build(network: Network) -> Callable[[str, Callable[[Any], None]], dict[str, Any]]:
    """The function of videos, for `hmhi.runtime.worker.WorkerProcess`."""
    segment = SegmentVideo(network.checkpoint, network.device, **network.options)
    return lambda video, report: segment(video, report)


def segment_list(
    videos: Path,
    output: Path,
    shard: Shard,
    network: Network,
    settings: dict[str, Any],
    *,
    time_limit: float | None = None,
    retry: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Counts:
    """Segment a shard's videos, except those that are done; none is opened before its turn.

    Args:
        videos: A path a line.
        output: Folder of the results of all shards.
        shard: Which lines.
        network: Built once, in a process of its own, and again after a crash or a video that took too long.
        settings: What the results depend on; those of an earlier run must be the same.
        time_limit: Seconds that a video may take.
        retry: Do videos anew that failed before.
        stopped: Asked all the time; True gives up the video at hand and ends.

    Raises:
        UserError: Other settings, or another process works on this shard.
    """
    if not videos.is_file():
        raise FileNotFoundError(f"list of videos not found: {videos}")
    _check_settings(output, settings)
    finished = _finished(output, retry=retry)
    counts = Counts()
    worker = WorkerProcess(build, network)
    with _Shelf(output, shard) as shelf:
        try:
            for video in shard.lines(videos):
                if video in finished:
                    counts.kept += 1
                    continue
                if stopped():
                    counts.stopped = True
                    break
                begin = time.perf_counter()
                try:
                    record = worker.run(video, time_limit=time_limit, stopped=stopped)
                except TaskStoppedError:
                    counts.stopped = True
                    break
                except (TimeLimitError, WorkerDiedError) as error:
                    last = str(error).strip().splitlines()[-1]
                    record = failure(last, time.perf_counter() - begin)
                except (
                    TaskRefusedError
                ) as error:  # only building the network refuses: no video will do better
                    raise UserError(str(error)) from None
                shelf.add(video, record)
                finished.add(video)
                counts.frames += record["frames"]
                if record["error"] is None:
                    counts.done += 1
                else:
                    counts.failed += 1
                    log.warning("%s: %s", video, record["error"])
        finally:
            worker.close()
    return counts


def read_status(output: Path) -> Iterator[dict[str, Any]]:
    """Status of each video: ``video``, ``error``, ``frames``, ``seconds``, ``shard``, ``masks`` [offset, length].

    A line that was cut off is passed over. Of a video that was done again the last line counts.
    """
    for path in sorted((output / STATUS).glob("*.jsonl")):
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield {"shard": path.stem, **json.loads(line)}


def read_result(output: Path, status: dict[str, Any]) -> dict[str, Any]:
    """The record of `SegmentVideo` that a status points to."""
    offset, length = status["masks"]
    with (output / MASKS / f"{status['shard']}.jsonl").open("rb") as stream:
        stream.seek(offset)
        return dict(json.loads(stream.read(length)))


class _Shelf:
    """The two files of a shard, open and locked."""

    def __init__(self, output: Path, shard: Shard) -> None:
        self._paths = [output / kind / f"{shard}.jsonl" for kind in (MASKS, STATUS)]
        self._shard = shard

    def __enter__(self) -> _Shelf:
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._masks, self._status = (path.open("ab") for path in self._paths)
        try:
            fcntl.flock(self._status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise UserError(f"another process works on shard {self._shard}") from None
        _end_line(self._paths[1], self._status)
        return self

    def __exit__(self, *exception: object) -> None:
        self._masks.close()
        self._status.close()

    def add(self, video: str, record: dict[str, Any]) -> None:
        """Write a video's record, then its status, both down to the disk."""
        line = json.dumps({"video": video, **record}).encode() + b"\n"
        offset = self._masks.seek(0, os.SEEK_END)
        _write(self._masks, line)
        status = {key: record[key] for key in ("error", "frames", "fps", "size", "seconds")}
        _write(
            self._status,
            json.dumps({"video": video, **status, "masks": [offset, len(line)]}).encode() + b"\n",
        )


def _write(stream: BinaryIO, line: bytes) -> None:
    stream.write(line)
    stream.flush()
    os.fsync(stream.fileno())


def _end_line(path: Path, stream: BinaryIO) -> None:
    """Cut off the half of a line that a killed process left."""
    content = path.read_bytes()
    stream.truncate(content.rfind(b"\n") + 1)


def _finished(output: Path, *, retry: bool) -> set[str]:
    errors = {status["video"]: status["error"] for status in read_status(output)}
    return {video for video, error in errors.items() if error is None or not retry}


def _check_settings(output: Path, settings: dict[str, Any]) -> None:
    path = output / SETTINGS
    if not path.exists():
        write_json(path, settings)
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        raise UserError(f"{path} is damaged; choose another --output") from None
    changed = [key for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{output} holds results made with another {', '.join(changed)}; choose another --output"
        )
