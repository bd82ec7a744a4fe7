"""The stages before the network: decoding, and flow with resizing, each in a thread of its own.

Each hands a few frames to the next one and keeps no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from hmhi.data.transforms import resize_flow, to_chw, to_input
from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.directions import flow_picture, still_picture
from hmhi.flow.estimate import BatchEstimator, FlowEstimator, ReducingEstimator
from hmhi.flow.files import check_shape, read_flow_rgb
from hmhi.inference.scenes import is_cut
from hmhi.inference.sources import Source, SourceFrame
from hmhi.runtime.pipeline import run_ahead

AHEAD = 2
"""Frames that may wait between two stages."""


class PreparedFrame(NamedTuple):
    """A frame as the network reads it. h w pixels of its input."""

    source: SourceFrame
    flow: np.ndarray
    """(rows, columns, 3) uint8: flow picture of any size."""
    scene_cut: bool
    """Whether a new scene begins with it."""
    image_input: Tensor
    """(3, h, w) uint8."""
    flow_input: Tensor
    """(3, h, w) uint8."""
    seconds: dict[str, float]


class _DecodedFrame(NamedTuple):
    source: SourceFrame
    following: np.ndarray | None
    """The next frame of the source; None after the last one of the video or of its scene."""
    previous: np.ndarray | None
    """The frame before, where both directions are joined; None before the first one of a scene."""
    scene_cut: bool
    image_input: Tensor
    seconds: float


class FlowStage:
    """Decodes frames, gives each its flow, and brings both to the size of the network's input.

    One stage serves any number of videos at once.

    Args:
        estimator: Flow between two frames.
        lock: Held while the estimator runs, where it takes one call at a time.
        join: Camera compensation with which both directions of time are joined; None for forward flow.
        compensation: Camera compensation of the flow picture that the network reads.
        input_size: (H, W) of a frame to (h, w) of the network's input.
        batch: Frames whose flow is computed at once, by estimators that can.
    """

    def __init__(
        self,
        estimator: FlowEstimator,
        lock: AbstractContextManager[object],
        *,
        join: str | None,
        compensation: str,
        input_size: Callable[[int, int], tuple[int, int]],
        batch: int = 1,
    ) -> None:
        self._estimator = estimator
        self._lock = lock
        self._join = join
        self._compensation = compensation
        self._input_size = input_size
        self._ahead = max(AHEAD, batch)
        self._batch = batch if isinstance(estimator, BatchEstimator) else 1

    def stream(
        self, source: Source, flows: Iterable[np.ndarray | Path] | None, scene_cuts: bool
    ) -> Generator[PreparedFrame, None, None]:
        """Prepare a video in two threads that end with the generator.

        Args:
            source: Its frames.
            flows: Stored flow pictures, or paths of flow maps, one for each frame of the whole source in order;
                None computes flow.
            scene_cuts: Whether flow ends at the cuts that `hmhi.inference.scenes.is_cut` sees.
        """
        frames = self._decode(source, scene_cuts, with_neighbours=flows is None)
        decoded = run_ahead(frames, self._ahead, f"decode {source.name}")
        prepared = self._compute_flow(decoded) if flows is None else self._read_flow(decoded, flows)
        return run_ahead(prepared, self._ahead, f"flow {source.name}")

    def live(self, index: int, image: np.ndarray, previous: np.ndarray | None) -> PreparedFrame:
        """Prepare the newest frame of a live video, in the caller's thread.

        Args:
            index: Its number.
            image: (H, W, 3) uint8 RGB.
            previous: The frame before, of the same shape; its flow from `image` is read with the sign turned. None
                shows no motion.
        """
        begin = time.perf_counter()
        decoded = _DecodedFrame(
            SourceFrame(index, None, image), None, previous, False, self._resize(image), 0.0
        )
        flow = still_picture(image) if previous is None else flow_to_rgb(-next(self._estimate([decoded])))
        return self._with_flow(decoded, flow, begin)

    def _decode(
        self, source: Source, scene_cuts: bool, *, with_neighbours: bool
    ) -> Generator[_DecodedFrame, None, None]:
        last: np.ndarray | None = None
        both = with_neighbours and self._join is not None
        with closing(source.neighbours(following=with_neighbours, previous=both)) as neighbours:
            begin = time.perf_counter()
            for frame, following, previous in neighbours:
                if following is not None and scene_cuts and is_cut(frame.image, following):
                    following = None
                if previous is not None and scene_cuts and is_cut(previous, frame.image):
                    previous = None
                cut = scene_cuts and last is not None and is_cut(last, frame.image)
                last = frame.image
                image_input = self._resize(frame.image)
                seconds = time.perf_counter() - begin
                yield _DecodedFrame(frame, following, previous, cut, image_input, seconds)
                begin = time.perf_counter()

    def _compute_flow(
        self, decoded: Generator[_DecodedFrame, None, None]
    ) -> Generator[PreparedFrame, None, None]:
        last: np.ndarray | None = None  # flow picture of the frame before, in its scene
        with closing(decoded):
            while chunk := list(islice(decoded, self._batch)):
                begin = time.perf_counter()
                fields = self._estimate(chunk)
                share = (time.perf_counter() - begin) / len(chunk)
                for item in chunk:
                    begin = time.perf_counter() - share
                    forward = None if item.following is None else next(fields)
                    backward = None if item.previous is None else next(fields)
                    flow = flow_picture(forward, backward, self._join)
                    if flow is None:
                        flow = still_picture(item.source.image) if last is None or item.scene_cut else last
                    last = flow
                    yield self._with_flow(item, flow, begin)

    def _read_flow(
        self, decoded: Generator[_DecodedFrame, None, None], flows: Iterable[np.ndarray | Path]
    ) -> Generator[PreparedFrame, None, None]:
        stored, position = iter(flows), 0
        with closing(decoded):
            for item in decoded:
                begin = time.perf_counter()
                index = item.source.index
                flow = next(islice(stored, index - position, None), None)
                position = index + 1
                if flow is None:
                    raise UserError(f"frame {index} has no stored flow")
                picture = read_flow_rgb(flow) if isinstance(flow, Path) else flow
                check_shape(
                    picture, item.source.image, str(flow) if isinstance(flow, Path) else f"frame {index}"
                )
                yield self._with_flow(item, picture, begin)

    def _estimate(self, frames: Sequence[_DecodedFrame]) -> Iterator[np.ndarray]:
        """Flow (rows, columns, 2) from each frame to its next one, if it has one, then to its previous one.

        It has the size that the estimator works on.
        """
        reduce = (
            self._estimator.reduce if isinstance(self._estimator, ReducingEstimator) else lambda image: image
        )
        pairs = [
            (image, reduce(neighbour))
            for item in frames
            for image in [reduce(item.source.image)]
            for neighbour in (item.following, item.previous)
            if neighbour is not None
        ]
        fields: Sequence[np.ndarray] | np.ndarray
        try:
            with self._lock:
                if len(pairs) > 1 and isinstance(self._estimator, BatchEstimator):
                    starts, ends = zip(*pairs, strict=True)
                    fields = self._estimator.batch(np.stack(starts), np.stack(ends))
                else:
                    fields = [self._estimator(start, end) for start, end in pairs]
            _check_fields(fields, len(pairs))
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError, cv2.error) as error:
            numbers = ", ".join(str(item.source.index) for item in frames)
            raise UserError(f"flow of frame {numbers} cannot be computed: {error}") from error
        return iter(fields)

    def _resize(self, image: np.ndarray) -> Tensor:
        return to_input(image, self._input_size(image.shape[0], image.shape[1]))

    def _with_flow(self, decoded: _DecodedFrame, flow: np.ndarray, begin: float) -> PreparedFrame:
        """Add the flow picture, on which work began at a time of `time.perf_counter`."""
        height, width = decoded.image_input.shape[1:]
        flow_input = to_chw(resize_flow(flow, (height, width), self._compensation))
        seconds = {"decode": decoded.seconds, "flow": time.perf_counter() - begin}
        return PreparedFrame(
            decoded.source, flow, decoded.scene_cut, decoded.image_input, flow_input, seconds
        )


def _check_fields(fields: Sequence[np.ndarray] | np.ndarray, count: int) -> None:
    """Refuse what an estimator returns if it is not flow, (rows, columns, 2) of finite numbers for each pair."""
    if not isinstance(fields, Sequence | np.ndarray) or len(fields) != count:
        raise UserError(f"the estimator returned {_describe(fields)} for {count} pairs of frames")
    for field in fields:
        if not isinstance(field, np.ndarray) or field.ndim != 3 or field.shape[2] != 2 or not field.size:
            raise UserError(f"the estimator returned {_describe(field)}, not flow of shape (H, W, 2)")
        if not np.isfinite(field).all():
            raise UserError("the estimator returned flow that is NaN or infinite")


def _describe(value: object) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
