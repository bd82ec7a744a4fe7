"""Segment unseen video in memory that does not grow with its length.

A stream has three stages that run side by side: decoding, flow (with resizing), and the network in the caller's
thread. Each hands a few frames to the next and none keeps more.

Example:
    >>> segmenter = VideoSegmenter()  # the weights in the box, or a checkpoint
    >>> for result in segmenter.stream("walk.mp4"):  # or a folder, a zip file, arrays, "camera:0"
    ...     use(result.mask)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.data.transforms import normalize, resize_flow, to_chw, to_input
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.compensate import join_directions
from hmhi.flow.estimate import BatchEstimator, FlowEstimator, ReducingEstimator, build_estimator
from hmhi.flow.files import read_flow_rgb
from hmhi.flow.provenance import UNKNOWN, computed_record, flow_mismatch, read_record
from hmhi.inference.scenes import is_cut
from hmhi.inference.sources import Source, SourceFrame, SourceLike, open_source
from hmhi.media.pictures import to_rgb
from hmhi.memory.bank import Memory
from hmhi.models.hmhi_net import PAD_TO
from hmhi.models.weights import load_state, model_from
from hmhi.runtime.pipeline import run_ahead
from hmhi.runtime.precision import amp_precision, autocast, compile_parts, settle

log = logging.getLogger(__name__)

Result = TypeVar("Result")

EMBEDDED = Path(__file__).resolve().parents[1] / "weights" / "hmhi_embedded.safetensors"
"""The weights in the box: a small network that learned from synthetic video alone (checkpoint/hmhi_embedded.md)."""

_AHEAD = 2  # frames that may wait between two stages


@dataclass(frozen=True)
class FrameResult:
    """What the network says of one frame, at the size of the source."""

    index: int
    """Number of the frame in the source, from 0."""
    time: float | None
    """Time stamp in seconds; None where the source has none."""
    frame: np.ndarray
    """(H, W, 3) uint8: the frame itself."""
    mask: np.ndarray
    """(H, W) bool: the salient object; may be empty."""
    prob: np.ndarray
    """(H, W) float32 in [0, 1]."""
    flow: np.ndarray
    """(h, w, 3) uint8: the flow picture that was read. Stored flow keeps the size it is stored in, DIS of large
    frames that it works on."""
    seconds: Mapping[str, float]
    """Time that ``decode``, ``flow`` (each with resizing) and ``network`` took for this frame. The stages overlap,
    so a frame takes less than their sum."""
    scene_cut: bool
    """Whether the frame was taken for the first one of a new scene, so that its memory began anew."""


class VideoSegmenter:
    """A network with its weights and all that it needs to read plain video.

    None stands for what the checkpoint's config says. One segmenter may run several streams by turns; each has
    a memory of its own.

    Args:
        checkpoint: A file that `hmhi.load_model` reads; None takes the small network in the box.
        device: Where the network runs; ``auto`` is the first GPU, or the CPU where there is none.
        flow: ``dis``, ``gmflow``, ``raft``, ``raft-small``, or any `hmhi.flow.estimate.FlowEstimator`.
        image_size: Size of the network's input, (height, width) or one number for a square; the aspect of the
            source is not kept, as in training.
        short_side: Instead of `image_size`: keep the aspect of each source, with a short side of so many pixels,
            both rounded to multiples of 32.
        memory_frames: T, frames that the memory holds.
        look_ahead: Frames that `stream` encodes, and gives GMFlow or RAFT, in one batch; the results are the same.
            1 has the least delay; more is faster on a GPU.
        amp: Run in bf16 where the device has it, else in fp16 on GPUs; on other CPUs change nothing.
        compile: Compile encoder and decoder, which takes minutes at the first frame and pays on long input.
        overrides: Further config changes, for example ``infer.threshold=0.6``.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of RAFT, do not exist.
        UserError: GMFlow's weights are not installed.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: A setting is not valid.
        ValueError: Both `image_size` and `short_side`, or no such device.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "auto",
        *,
        flow: str | FlowEstimator | None = None,
        image_size: int | Sequence[int] | None = None,
        short_side: int | None = None,
        memory_frames: int | None = None,
        look_ahead: int = 1,
        amp: bool = False,
        compile: bool = False,
        overrides: Sequence[str] = (),
    ) -> None:
        if image_size is not None and short_side is not None:
            raise ValueError("give image_size or short_side, not both")
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side must be positive, got {short_side}")
        if look_ahead < 1:
            raise ValueError(f"look_ahead must be 1 or more, got {look_ahead}")
        self.device = find_device(device)
        changes = list(overrides)
        if isinstance(flow, str):
            changes.append(f"infer.flow={flow}")
        if image_size is not None:
            height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
            changes.append(f"infer.image_size=[{height},{width}]")
        if memory_frames is not None:
            changes.append(f"model.memory_frames={memory_frames}")
        if amp:
            changes.append(f"infer.precision={amp_precision(self.device)}")
        checkpoint = EMBEDDED if checkpoint is None else Path(checkpoint)
        contents = load_state(checkpoint)
        self.model, config = model_from(contents, checkpoint, self.device, changes)
        self.trained_flow: dict[str, dict[str, str]] = contents.get("flow", {})
        self.config = config.infer
        self.image_size = config.infer.image_size or config.data.image_size
        self.short_side = short_side
        self.look_ahead = look_ahead
        self.compensation = config.data.compensation
        self.join = config.data.join
        self.estimator: FlowEstimator
        if flow is None or isinstance(flow, str):
            weights = config.infer.flow_weights
            self.estimator = build_estimator(
                config.infer.flow, str(self.device), None if weights is None else Path(weights)
            )
            self.flow_method: str = config.infer.flow
        else:
            self.estimator, self.flow_method = flow, UNKNOWN
        # One estimator serves the flow threads of all streams, and DIS bears only one.
        self._flow_lock = Lock()
        settle(self.model)
        self._compiled = compile
        if compile:
            compile_parts(self.model)
        self._live = _Live()

    def warn_of_other_flow(self, folder: Path | None = None) -> None:
        """Log a warning where flow is of another kind than the network was trained on.

        Args:
            folder: Flow maps that will be read; None stands for the segmenter's own estimator.
        """
        used = computed_record(self.flow_method, join=self.join) if folder is None else read_record(folder)
        if mismatch := flow_mismatch(self.trained_flow, used):
            log.warning("masks may suffer from flow unlike that of training: %s", mismatch)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input for frames of a size."""
        if self.short_side is None:
            return self.image_size[0], self.image_size[1]
        scale = self.short_side / min(height, width)
        rows, columns = (max(1, round(side * scale / PAD_TO)) * PAD_TO for side in (height, width))
        return rows, columns

    def stream(
        self,
        source: SourceLike,
        flows: Iterable[np.ndarray | Path] | None = None,
        *,
        start: int | str | None = None,
        end: int | str | None = None,
        every: int = 1,
        scene_cuts: bool = False,
    ) -> Generator[FrameResult, None, None]:
        """Segment a video, reading no more than a few frames ahead.

        Flow leads from each kept frame to the very next frame of the source. The last frame of the source has no
        next one and takes the flow of the kept frame before it; a video of one frame shows no motion (white).
        Where the checkpoint's config says ``data.flow_direction=both``, flow is joined with that to the very
        previous frame (`hmhi.flow.compensate.join_directions`); the first kept frame has the forward flow only,
        the last frame of the source minus the backward flow.

        Args:
            source: See `hmhi.inference.sources.open_source`; generators are run in another thread.
            flows: Stored flow pictures, or paths of flow maps, one for each frame of the whole source in order;
                pictures are (h, w, 3) uint8 colour wheel of any size. None computes flow.
            start: First frame to segment: its number, or seconds such as ``"2.5s"``.
            end: Where to stop, alike; this frame is left out.
            every: Segment each every-th frame from `start` on.
            scene_cuts: Begin anew where `hmhi.inference.scenes.is_cut` sees another scene. No flow leads across a
                cut: a scene begins and ends as a video does.

        Raises:
            ValueError: A frame cannot be read, is of another size than the first, or has no stored flow; names
                its number or file. What `open_source` raises comes at once, the rest where the frame is due.
            OSError: A file or a camera fails.
        """
        opened = open_source(source, start=start, end=end, every=every)
        return self._stream(opened, flows, scene_cuts)

    def _stream(
        self, source: Source, flows: Iterable[np.ndarray | Path] | None, scene_cuts: bool
    ) -> Generator[FrameResult, None, None]:
        memory: Memory | None = None
        with closing(self._prepare(source, flows, scene_cuts)) as frames:
            for chunk in _chunks(frames, self.look_ahead):
                features, seconds = self._encode(chunk)
                for row, frame in enumerate(chunk):
                    if frame.scene_cut:
                        memory = None
                    own = {stage: feature[row : row + 1] for stage, feature in features.items()}
                    (result,), memory = self._advance([frame], own, memory, seconds)
                    yield result

    def segment_many(
        self, sources: Sequence[SourceLike], *, every: int = 1, scene_cuts: bool = False
    ) -> Iterator[tuple[int, FrameResult]]:
        """Segment several videos at a time, in batches through the network, each with a memory of its own.

        Videos whose network input is of one size share a batch and go forward in step; one that ends, or at a
        scene cut, leaves it. Results are those of a `stream` of each. A few frames of each video are held.

        Args:
            sources: As for `stream`.
            every: As for `stream`.
            scene_cuts: As for `stream`.

        Yields:
            Number of the source, from 0, and a result; the results of one source come in order.

        Raises:
            ValueError: As for `stream`; ends all of them.
            OSError: A file or a camera fails.
        """
        opened = [open_source(source, every=every) for source in sources]
        return self._segment_many(opened, scene_cuts)

    def _segment_many(self, sources: Sequence[Source], scene_cuts: bool) -> Iterator[tuple[int, FrameResult]]:
        with ExitStack() as stack:
            videos = {
                number: stack.enter_context(closing(self._prepare(source, None, scene_cuts)))
                for number, source in enumerate(sources)
            }
            batches: list[_Batch] = []
            while videos:
                frames = {number: next(video, None) for number, video in videos.items()}
                due = {number: frame for number, frame in frames.items() if frame is not None}
                videos = {number: videos[number] for number in due}
                batches = _regroup(batches, due)
                for batch in batches:
                    chunk = [due[number] for number in batch.videos]
                    features, seconds = self._encode(chunk)
                    results, batch.memory = self._advance(chunk, features, batch.memory, seconds)
                    yield from zip(batch.videos, results, strict=True)

    def step(self, frame: np.ndarray) -> FrameResult:
        """Segment the next frame of a live video at once, without waiting for the one after it.

        Flow is minus that from this frame to the one before; the first frame shows no motion. (`stream` reads
        flow as in training, and is the better choice where one frame of delay does no harm.)

        Args:
            frame: (H, W, 3) uint8 RGB, or what `hmhi.media.pictures.to_rgb` makes such.

        Raises:
            ValueError: Not such a frame, of another size than the one before, or its flow cannot be computed; the
                video goes on unharmed.
        """
        live = self._live
        try:
            image = to_rgb(frame).copy()  # a live loop may fill one buffer again and again
        except ValueError as error:
            raise ValueError(f"frame {live.index}: {error}") from None
        begin = time.perf_counter()
        decoded = _Decoded(
            SourceFrame(live.index, None, image), None, live.image, False, self._image_input(image), 0.0
        )
        if live.image is None:
            flow = still_picture(image)
        elif live.image.shape != image.shape:
            raise ValueError(
                f"frame {live.index} has shape {image.shape}, but the one before {live.image.shape}; call reset() "
                f"when another video begins"
            )
        else:
            flow = flow_to_rgb(-next(self._estimate([decoded])))
        prepared = self._with_flow(decoded, flow, begin)
        features, seconds = self._encode([prepared])
        (result,), memory = self._advance([prepared], features, live.memory, seconds)
        self._live = _Live(live.index + 1, image, memory)
        return result

    def reset(self) -> None:
        """Forget the live video of `step`, so that another one may begin."""
        self._live = _Live()

    def _prepare(
        self, source: Source, flows: Iterable[np.ndarray | Path] | None, scene_cuts: bool
    ) -> Generator[_Prepared, None, None]:
        """Decode and compute flow in two threads, each a few frames ahead of the next stage."""
        ahead = max(_AHEAD, self.look_ahead)
        frames = self._decode(source, scene_cuts, with_neighbours=flows is None)
        decoded = run_ahead(frames, ahead, f"decode {source.name}")
        moving = self._compute_flow(decoded) if flows is None else self._read_flow(decoded, flows)
        return run_ahead(moving, ahead, f"flow {source.name}")

    def _decode(
        self, source: Source, scene_cuts: bool, *, with_neighbours: bool
    ) -> Generator[_Decoded, None, None]:
        before: np.ndarray | None = None
        both = with_neighbours and self.join is not None
        with closing(source.neighbours(following=with_neighbours, previous=both)) as neighbours:
            begin = time.perf_counter()
            for frame, following, previous in neighbours:
                if following is not None and scene_cuts and is_cut(frame.image, following):
                    following = None
                if previous is not None and scene_cuts and is_cut(previous, frame.image):
                    previous = None
                cut = scene_cuts and before is not None and is_cut(before, frame.image)
                before = frame.image
                image = self._image_input(frame.image)
                yield _Decoded(frame, following, previous, cut, image, time.perf_counter() - begin)
                begin = time.perf_counter()

    def _compute_flow(self, decoded: Generator[_Decoded, None, None]) -> Generator[_Prepared, None, None]:
        """Flow of each frame; where it has no neighbour for that, the flow of the frame before in its scene."""
        batch = self.look_ahead if isinstance(self.estimator, BatchEstimator) else 1
        flow: np.ndarray | None = None
        with closing(decoded):
            while chunk := list(islice(decoded, batch)):
                begin = time.perf_counter()
                fields = self._estimate(chunk)
                share = (time.perf_counter() - begin) / len(chunk)
                for item in chunk:
                    begin = time.perf_counter() - share
                    forward = None if item.following is None else next(fields)
                    backward = None if item.previous is None else next(fields)
                    if self.join is not None and backward is not None:
                        flow = flow_to_rgb(join_directions(forward, backward, self.join))
                    elif forward is not None:
                        flow = flow_to_rgb(forward)
                    elif flow is None or item.scene_cut:
                        flow = still_picture(item.frame.image)
                    yield self._with_flow(item, flow, begin)

    def _estimate(self, frames: Sequence[_Decoded]) -> Iterator[np.ndarray]:
        """Flow (h, w, 2) from each frame to its next one, if it has one, then to its previous one, if it has one.

        It has the size that the estimator works on.
        """
        reduce = (
            self.estimator.reduce if isinstance(self.estimator, ReducingEstimator) else lambda image: image
        )
        pairs = [
            (image, reduce(neighbour))
            for item in frames
            for image in [reduce(item.frame.image)]
            for neighbour in (item.following, item.previous)
            if neighbour is not None
        ]
        try:
            with self._flow_lock:
                if len(pairs) > 1 and isinstance(self.estimator, BatchEstimator):
                    starts, ends = zip(*pairs, strict=True)
                    return iter(self.estimator.batch(np.stack(starts), np.stack(ends)))
                return iter([self.estimator(start, end) for start, end in pairs])
        except (ValueError, RuntimeError, cv2.error) as error:
            numbers = ", ".join(str(item.frame.index) for item in frames)
            raise ValueError(f"flow of frame {numbers} cannot be computed: {error}") from error

    def _read_flow(
        self, decoded: Generator[_Decoded, None, None], flows: Iterable[np.ndarray | Path]
    ) -> Generator[_Prepared, None, None]:
        stored, position = iter(flows), 0
        with closing(decoded):
            for item in decoded:
                begin = time.perf_counter()
                index = item.frame.index
                flow = next(islice(stored, index - position, None), None)
                position = index + 1
                if flow is None:
                    raise ValueError(f"frame {index} has no stored flow")
                yield self._with_flow(item, read_flow_rgb(flow) if isinstance(flow, Path) else flow, begin)

    def _image_input(self, image: np.ndarray) -> Tensor:
        return to_input(image, self.input_size(image.shape[0], image.shape[1]))

    def _with_flow(self, decoded: _Decoded, flow: np.ndarray, begin: float) -> _Prepared:
        """Join a frame and its flow picture, on which work began at a time of `time.perf_counter`."""
        height, width = decoded.image.shape[1:]
        motion = to_chw(resize_flow(flow, (height, width), self.compensation))
        seconds = {"decode": decoded.seconds, "flow": time.perf_counter() - begin}
        return _Prepared(decoded.frame, flow, decoded.scene_cut, decoded.image, motion, seconds)

    @torch.inference_mode()
    def _encode(self, frames: Sequence[_Prepared]) -> tuple[dict[int, Tensor], float]:
        """Features of a batch of frames, and the seconds that each took."""
        begin = time.perf_counter()
        image = normalize(torch.stack([frame.image for frame in frames]).to(self.device))
        motion = normalize(torch.stack([frame.motion for frame in frames]).to(self.device))
        with autocast(self.device, self.config.precision):
            features = self._or_eager(lambda: self.model.encode(image, motion))
        if self.device.type == "cuda" and len(frames) > 1:
            torch.cuda.synchronize(self.device)  # so that the frames of the batch share its time
        return features, (time.perf_counter() - begin) / len(frames)

    @torch.inference_mode()
    def _advance(
        self, frames: Sequence[_Prepared], features: dict[int, Tensor], memory: Memory | None, encoded: float
    ) -> tuple[list[FrameResult], Memory]:
        """Results of one frame of each video of a batch, and their memory after it."""
        begin = time.perf_counter()
        height, width = frames[0].image.shape[1:]
        with autocast(self.device, self.config.precision):
            logits, memory = self._or_eager(lambda: self.model.advance(features, (height, width), memory))
        probs = []
        for row, frame in enumerate(frames):
            size = (frame.frame.image.shape[0], frame.frame.image.shape[1])
            prob = to_probability(logits[row : row + 1], size, stretch=self.config.stretch)
            probs.append(prob[0, 0].cpu().numpy())
        seconds = encoded + (time.perf_counter() - begin) / len(frames)
        results = [
            FrameResult(
                index=frame.frame.index,
                time=frame.frame.time,
                frame=frame.frame.image,
                mask=prob > self.config.threshold,
                prob=prob,
                flow=frame.flow,
                seconds={**frame.seconds, "network": seconds},
                scene_cut=frame.scene_cut,
            )
            for frame, prob in zip(frames, probs, strict=True)
        ]
        return results, memory

    def _or_eager(self, call: Callable[[], Result]) -> Result:
        """Where compiling fails, say so once and go on without it; other errors come back from the second try."""
        try:
            return call()
        except Exception as error:
            if not self._compiled:
                raise
            self._compiled = False
            for part in (self.model.encoder, self.model.decoder):
                part._compiled_call_impl = None  # what compile() set; torch has no public way back
            result = call()
            reason = str(error).strip().partition("\n")[0]
            log.warning("torch.compile failed, going on without it (%s: %s)", type(error).__name__, reason)
            return result


class _Decoded(NamedTuple):
    frame: SourceFrame
    following: np.ndarray | None
    """The next frame of the source; None after the last one of the video or of its scene."""
    previous: np.ndarray | None
    """The frame before, where flow is joined from both directions; None before the first one of a scene."""
    scene_cut: bool
    image: Tensor
    """uint8 (3, h, w), as the network reads it."""
    seconds: float


class _Prepared(NamedTuple):
    """A frame as the network reads it."""

    frame: SourceFrame
    flow: np.ndarray
    scene_cut: bool
    image: Tensor
    """uint8 (3, h, w)."""
    motion: Tensor
    """uint8 (3, h, w)."""
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Live:
    """What `VideoSegmenter.step` remembers: number of the frame that comes, the one before, the memory."""

    index: int = 0
    image: np.ndarray | None = None
    memory: Memory | None = None


@dataclass
class _Batch:
    """Videos that go forward in step, and their memory."""

    videos: list[int]
    memory: Memory | None


def _chunks(frames: Iterable[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    """Lists of `size` frames; when the source fails, first those that came before."""
    chunk: list[_Prepared] = []
    try:
        for frame in frames:
            chunk.append(frame)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except (ValueError, OSError):
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _regroup(batches: Sequence[_Batch], due: Mapping[int, _Prepared]) -> list[_Batch]:
    """Batches of the videos that have a frame: those at a first frame or a scene cut begin anew, by input size."""
    kept = []
    for batch in batches:
        rows = [row for row, number in enumerate(batch.videos) if number in due and not due[number].scene_cut]
        if len(rows) < len(batch.videos) and batch.memory is not None:
            batch = _Batch([batch.videos[row] for row in rows], batch.memory.rows(rows))
        if rows:
            kept.append(batch)
    going = {number for batch in kept for number in batch.videos}
    fresh: dict[torch.Size, _Batch] = {}
    for number, frame in due.items():
        if number not in going:
            fresh.setdefault(frame.image.shape, _Batch([], None)).videos.append(number)
    return [*kept, *fresh.values()]


def find_device(name: str | torch.device) -> torch.device:
    """A torch device by name; ``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: No such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return device


def still_picture(image: np.ndarray) -> np.ndarray:
    """Flow picture of a frame in which nothing moves: white, (H, W, 3) uint8."""
    return np.full_like(image, 255)


def to_probability(logits: Tensor, size: tuple[int, int], *, stretch: bool = False) -> Tensor:
    """Logits of the network to probabilities at the size of the source.

    Args:
        logits: (B, 1, h, w).
        size: (H, W) of the result; reached by bilinear interpolation of the logits.
        stretch: Spread each frame's values over 0-1, as the release does. A frame without an object then shows
            one all the same.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    prob = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
    if stretch:
        low, high = prob.amin((1, 2, 3), keepdim=True), prob.amax((1, 2, 3), keepdim=True)
        prob = (prob - low) / (high - low + 1e-8)
    return prob
