"""Computing the flow of whole sequences once, to read it from disk ever after."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb, write_flo
from hmhi.flow.compensate import join_directions
from hmhi.flow.directions import flow_start
from hmhi.flow.estimate import BatchEstimator, FlowEstimator
from hmhi.flow.provenance import FORMAT, MANIFEST, NORMALISED
from hmhi.media.atomic import write_atomically
from hmhi.media.files import read_text

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class FlowSettings:
    """What decides the pixels of a flow map; the manifest holds it."""

    method: str
    """One of `hmhi.flow.estimate.METHODS`."""
    weights: str | None
    """Name of the weights file."""
    weights_sha256: str | None
    """Its hash."""
    direction: str
    """``forward``: from a frame to the next; ``backward``: from a frame to the previous; ``both``: joined, see
    `hmhi.flow.compensate.join_directions`."""
    last: str
    """The frame at the end of the direction, which has no neighbour there: ``repeat`` its neighbour's map,
    flow in the other direction (``backward``), or ``none``. With both directions, the frames at both ends have
    the motion that their one neighbour shows."""
    compensation: str
    """Camera motion taken out before drawing; see `hmhi.flow.compensate`."""
    file_format: str
    """``png``, ``jpg`` or ``flo``."""

    def manifest(self) -> dict[str, Any]:
        """The settings as JSON values, with the meaning of the files."""
        normalisation = "none, pixels" if self.file_format == "flo" else NORMALISED
        return {
            "format": FORMAT,
            **asdict(self),
            "colours": None if self.file_format == "flo" else "wheel of Baker et al., as RAFT draws it",
            "normalisation": normalisation,
        }


@dataclass(frozen=True)
class FlowTask:
    """One map to make."""

    source: Path
    """Frame that the flow starts from: the one the map is named after, or its neighbour if that is repeated."""
    target: Path | None
    """Frame that the flow leads to; None where a sequence has one frame only."""
    output: Path
    """File to write."""
    previous: Path | None = None
    """Frame before the source, if motion from there is to be joined."""


def plan(
    root: Path, sequences: Mapping[Path, Sequence[Path]], output: Path, settings: FlowSettings
) -> list[FlowTask]:
    """List the maps to make, in order.

    Args:
        root: Where the frames lie.
        sequences: Folder below `root`, relative to it -> its frames in order.
        output: Receives the maps in the same folders.
        settings: What to make.

    Raises:
        FileNotFoundError: No frames there.
        UserError: Two frames of a folder share a stem, the maps would lie among the frames, or both directions
            are to be joined without taking out the camera's motion.
    """
    if settings.direction == "both" and settings.compensation == "none":
        raise UserError(
            "--direction both compares motion relative to the camera; add --compensation, such as homography"
        )
    if output.resolve().is_relative_to(root.resolve()):
        raise UserError(f"output {output} lies in the input {root}, where its maps would pass for frames")
    if not sequences:
        raise FileNotFoundError(
            f"no frames in or below {root}; expected images, zip files of images, or videos"
        )
    tasks = []
    for folder, frames in sequences.items():
        stems = [frame.stem for frame in frames]
        if len(set(stems)) < len(stems):
            twice = sorted({stem for stem in stems if stems.count(stem) > 1})
            raise UserError(f"{root / folder}: more than one image for frame {', '.join(twice)}")
        tasks += _plan_sequence(frames, output / folder, settings)
    return tasks


def _plan_sequence(frames: Sequence[Path], folder: Path, settings: FlowSettings) -> list[FlowTask]:
    if settings.direction == "both":
        following, previous = [*frames[1:], None], [None, *frames[:-1]]
        return [
            FlowTask(frame, after, folder / f"{frame.stem}.{settings.file_format}", before)
            for frame, after, before in zip(frames, following, previous, strict=True)
        ]
    step = 1 if settings.direction == "forward" else -1
    tasks = []
    for index, frame in enumerate(frames):
        output = folder / f"{frame.stem}.{settings.file_format}"
        start = flow_start(index, len(frames), step)
        if start == index:
            tasks.append(FlowTask(frame, frames[index + step], output))
        elif settings.last == "none":
            continue
        elif len(frames) == 1:
            tasks.append(FlowTask(frame, None, output))
        elif settings.last == "repeat":
            tasks.append(FlowTask(frames[start], frame, output))
        else:
            tasks.append(FlowTask(frame, frames[start], output))
    return tasks


def write_manifest(output: Path, settings: FlowSettings) -> None:
    """Write the manifest of a folder of flow maps, or check the one that is there.

    Raises:
        UserError: The folder already holds maps made with other settings.
    """
    path, wanted = output / MANIFEST, settings.manifest()
    if path.is_file():
        try:
            found = json.loads(read_text(path))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError(f"{path} is damaged; delete it, and the maps beside it if in doubt")
        other = [
            f"{key} {found.get(key)!r} (now {wanted[key]!r})"
            for key in wanted
            if found.get(key) != wanted[key]
        ]
        if other:
            raise UserError(f"{output} holds flow made with {', '.join(other)}; choose another output folder")
        return
    with write_atomically(path) as stream:
        stream.write(json.dumps(wanted, indent=2).encode() + b"\n")


def make_flow(
    tasks: list[FlowTask],
    settings: FlowSettings,
    estimator: FlowEstimator,
    read: Callable[[Path], np.ndarray],
    done: Callable[[int], object],
    batch_size: int = 1,
) -> int:
    """Compute and write the maps that are not there yet, each file whole or not at all.

    Args:
        tasks: From `plan`, or a part of them.
        settings: Those of the plan.
        estimator: Computes flow between two frames.
        read: Decodes a frame to (H, W, 3) uint8 RGB, or raises UserError.
        done: Called with 1 after every map, found or made.
        batch_size: Maps computed at a time, if the estimator is one for batches and their frames are of one size.

    Returns:
        Number of maps made.

    Raises:
        UserError: A frame cannot be read, or has another size than its neighbour; the message names it.
    """
    missing = []
    for task in tasks:
        if task.output.is_file():
            done(1)
        else:
            missing.append(task)
    frames = _Frames(read)
    for start in range(0, len(missing), batch_size):
        group = missing[start : start + batch_size]
        pairs = [pair for task in group for pair in _read_pairs(task, frames)]
        fields = _estimate(pairs, estimator)
        for task in group:
            forward = None if task.target is None else next(fields)
            backward = None if task.previous is None else next(fields)
            if forward is None and backward is None:
                flow = np.zeros((*frames[task.source].shape[:2], 2), np.float32)
            else:
                flow = join_directions(forward, backward, settings.compensation)
            _write(task.output, flow, settings.file_format)
            done(1)
    return len(missing)


def shard(tasks: list[FlowTask], rank: int, world_size: int) -> list[FlowTask]:
    """The share of one of several processes: an unbroken stretch, so that frames are decoded once."""
    low, high = (len(tasks) * part // world_size for part in (rank, rank + 1))
    return tasks[low:high]


class _Frames:
    """Decodes frames and keeps the three that the next map may need again."""

    def __init__(self, read: Callable[[Path], np.ndarray]) -> None:
        self._read = read
        self._kept: dict[Path, np.ndarray] = {}

    def __getitem__(self, path: Path) -> np.ndarray:
        if path not in self._kept:
            while len(self._kept) > 2:
                del self._kept[next(iter(self._kept))]
            self._kept[path] = self._read(path)
        return self._kept[path]


def _read_pairs(task: FlowTask, frames: _Frames) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The source with its target, then with its previous frame, as far as there are such."""
    source = frames[task.source]
    for path in (task.target, task.previous):
        if path is None:
            continue
        neighbour = frames[path]
        if source.shape != neighbour.shape:
            raise UserError(
                f"{task.source} is {source.shape[1]} x {source.shape[0]} but {path.name} is "
                f"{neighbour.shape[1]} x {neighbour.shape[0]}; frames of a sequence must be of one size"
            )
        yield source, neighbour


def _estimate(pairs: list[tuple[np.ndarray, np.ndarray]], estimator: FlowEstimator) -> Iterator[np.ndarray]:
    """Flow of each pair, in order."""
    for _, alike in groupby(pairs, key=lambda pair: pair[0].shape):
        sources, targets = zip(*alike, strict=True)
        if isinstance(estimator, BatchEstimator) and len(sources) > 1:
            yield from estimator.batch(np.stack(sources), np.stack(targets))
        else:
            yield from map(estimator, sources, targets)


def _write(path: Path, flow: np.ndarray, file_format: str) -> None:
    if file_format == "flo":
        write_flo(path, flow)
        return
    encoded = io.BytesIO()
    if file_format == "jpg":
        Image.fromarray(flow_to_rgb(flow)).save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(flow_to_rgb(flow)).save(encoded, "PNG")
    with write_atomically(path) as stream:
        stream.write(encoded.getvalue())
