"""Many videos on Ray Data (extra ``ray``): a list goes in, a pool of actors segments, Parquet files come out.

Scheduling, restarts and machines are Ray's. Ours is the function and the rule of resuming: a video whose row is
written is left out before anything is scheduled.

Example:
    >>> import ray
    >>> ray.init("local")  # or the address of a cluster; all machines must see the same folder of results
    >>> segment_videos(Path("videos.txt"), Path("/results"), actors=4)
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import ray

from hmhi.errors import UserError
from hmhi.scale.shards import Shard

log = logging.getLogger(__name__)

SCHEMA = pyarrow.schema([
    ("video", pyarrow.string()), ("error", pyarrow.string()), ("frames", pyarrow.int64()), ("fps", pyarrow.float64()),
    ("seconds", pyarrow.float64()), ("record", pyarrow.string()),
])  # fmt: skip
"""Columns of the results; ``record`` is that of `hmhi.scale.SegmentVideo` as JSON."""


def segment_videos(
    videos: Path, output: Path, *, actors: int = 1, cpus: float = 1, gpus: float = 0, **network: Any
) -> int:
    """Segment the videos of a list that have no row in the output yet.

    Args:
        videos: A path a line, as for ``hmhi segment --list``.
        output: Folder of Parquet files with the columns of `SCHEMA`, some for each run.
        actors: How many segment at a time; each builds the network once.
        cpus: That Ray counts for an actor. Leave it one for its writers: with actors on all of them nothing moves.
        gpus: Likewise; 0.25 puts four actors on a GPU.
        **network: Arguments of `hmhi.scale.SegmentVideo`.

    Returns:
        Number of videos that got a row, failed ones included.

    Raises:
        FileNotFoundError: There is no such list.
        UserError: A path in the list is no UTF-8, which Parquet cannot hold.
    """
    done = finished(output)
    left = [video for video in dict.fromkeys(Shard().lines(videos)) if video not in done]
    for video in left:
        try:
            video.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{videos}: {video!a} is no UTF-8, which Parquet needs; rename the file"
            ) from None
    if not left:
        return 0
    # A video a block: it is written as soon as it is done, and no shuffle is needed to feed all actors.
    rows = ray.data.from_items([{"video": video} for video in left], override_num_blocks=len(left))
    results = rows.map_batches(
        _Segment,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_kwargs=network,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    results.write_parquet(str(output), mode=ray.data.SaveMode.APPEND)
    return len(left)


def finished(output: Path) -> set[str]:
    """Videos that have a row; a file that a killed run left damaged is renamed, and its videos are done again."""
    done: set[str] = set()
    for path in output.glob("*.parquet"):
        try:
            done.update(pyarrow.parquet.read_table(path, columns=["video"])["video"].to_pylist())
        except (pyarrow.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file could not be opened; that says nothing about what is in it
            log.warning("%s is damaged and now ends in .damaged; its videos are done again", path)
            path.rename(path.with_name(f"{path.name}.damaged"))
    return done


class _Segment:
    """One actor."""

    def __init__(self, **network: Any) -> None:
        from hmhi.scale.video import SegmentVideo  # torch is for actors alone

        self._segment = SegmentVideo(**network)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        rows = []
        for video in batch["video"].to_pylist():
            record = self._segment(video)
            columns = {name: record[name] for name in ("error", "frames", "fps")}
            seconds, whole = record["seconds"]["total"], json.dumps(record)
            rows.append({"video": video, **columns, "seconds": seconds, "record": whole})
        return pyarrow.Table.from_pylist(rows, SCHEMA)
