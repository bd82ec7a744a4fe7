"""Segment the salient object of unseen video, in memory that does not grow with its length.

Example:
    >>> segmenter = VideoSegmenter()  # the bundled weights, or a checkpoint
    >>> for result in segmenter.stream("walk.mp4"):  # or a folder, a zip file, arrays, "camera:0"
    ...     use(result.mask)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from hmhi.errors import UserError, check_count
from hmhi.flow.estimate import BatchEstimator, FlowEstimator, build_estimator
from hmhi.flow.provenance import UNKNOWN, computed_record, flow_mismatch, read_record
from hmhi.inference.base import EMBEDDED, compile_or_warn, describe, find_device, load_network
from hmhi.inference.batches import Batch, chunks, regroup
from hmhi.inference.flow_stage import FlowStage, PreparedFrame
from hmhi.inference.quality import quality_settings
from hmhi.inference.refine import refine_edges, refines
from hmhi.inference.results import FrameResult
from hmhi.inference.session import VideoSession
from hmhi.inference.sources import Source, SourceLike, open_source
from hmhi.inference.threads import leave_a_core
from hmhi.inference.views import count_views, merge_views, view_inputs
from hmhi.memory.bank import Memory
from hmhi.models.hmhi_net import HMHINet
from hmhi.runtime.frames import FrameRunner, InputSize, to_arrays, to_probability
from hmhi.runtime.graphs import GraphRunner

log = logging.getLogger(__name__)


class VideoSegmenter:
    """A network with its weights and all that it needs to read plain video.

    None stands for what the checkpoint's config says. One segmenter may run any number of streams and sessions at
    once, also from different threads; each has a memory of its own.

    Args:
        checkpoint: A file that `hmhi.load_model` reads; None takes the bundled weights.
        device: Where the network runs; ``auto`` is the first GPU, or the CPU where there is none.
        flow: ``dis``, ``gmflow``, ``raft``, ``raft-small``, or any `hmhi.flow.estimate.FlowEstimator`, which is
            called by one thread at a time.
        image_size: Size of the network's input, (height, width) or one number for a square; the aspect of the
            source is not kept, as in training.
        short_side: Instead of `image_size`: keep the aspect of each source, with a short side of so many pixels,
            both rounded to multiples of 32.
        memory_frames: T, frames that the memory holds.
        look_ahead: Frames that `stream` encodes, and gives GMFlow or RAFT, in one batch; the results are the same.
            1 has the least delay; more is faster on a GPU.
        quality: ``fast`` or ``best``: what `flow`, `refine` and `tta` are where nothing is said of them, see
            `hmhi.inference.quality`.
        refine: ``guided``: probabilities follow the edges of the frame; ``auto``: where that helps; ``none``. See
            `hmhi.inference.refine`. None is ``auto`` in every checkpoint whose config does not say otherwise.
        tta: ``flip``: average with the mirrored video, at twice the network's work; ``none``.
        amp: Run in bf16 where the device has it, else in fp16 on GPUs; on other CPUs change nothing.
        compile: Compile encoder and decoder, here and now; takes minutes and pays on long input. Where torch cannot,
            a warning says so.
        graphs: On a GPU, run the network as CUDA graphs (`hmhi.runtime.graphs`); the same numbers. On a CPU this
            changes nothing.
        overrides: Further config changes, for example ``infer.threshold=0.6``.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of RAFT, do not exist.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: A setting is not valid.
        UserError: The checkpoint holds a network that follows given objects, both `image_size` and `short_side`, no
            such device, or GMFlow's weights are not installed.
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
        quality: str | None = None,
        refine: str | None = None,
        tta: str | None = None,
        amp: bool = False,
        compile: bool = False,
        graphs: bool = False,
        overrides: Sequence[str] = (),
    ) -> None:
        if image_size is not None and short_side is not None:
            raise UserError("give image_size or short_side, not both")
        if short_side is not None:
            check_count("short_side", short_side)
        check_count("look_ahead", look_ahead)
        self.device = find_device(device)
        changes = [*quality_settings(quality, own_flow=flow is not None, overrides=overrides), *overrides]
        for name, value in (("flow", flow), ("refine", refine), ("tta", tta)):
            if isinstance(value, str):
                changes.append(f"infer.{name}={value}")
        if image_size is not None:
            sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
            changes.append(f"infer.image_size=[{','.join(map(str, sides))}]")
        if memory_frames is not None:
            changes.append(f"model.memory_frames={memory_frames}")

        network = load_network(checkpoint or EMBEDDED, self.device, changes, amp=amp)
        if not isinstance(network.model, HMHINet):
            raise UserError(
                f"{checkpoint} holds {describe(network.model)}; use hmhi.ObjectSegmenter, or a checkpoint of HMHI-Net"
            )
        self.model, self.trained_flow = network.model, network.trained_flow
        self.config, data = network.config.infer, network.config.data
        height, width = self.config.image_size or data.image_size
        self.input_size = InputSize((height, width), short_side).of
        self.look_ahead = look_ahead
        self.views = count_views(self.config.tta)

        self.join = data.join
        self.estimator: FlowEstimator
        if flow is None or isinstance(flow, str):
            weights = None if self.config.flow_weights is None else Path(self.config.flow_weights)
            self.estimator = build_estimator(
                self.config.flow, str(self.device), weights, self.config.precision
            )
            self.flow_method: str = self.config.flow
        else:
            self.estimator, self.flow_method = flow, UNKNOWN
        self.stage = FlowStage(
            self.estimator,
            Lock() if self.estimator is flow else nullcontext(),
            join=data.join,
            compensation=data.compensation,
            input_size=self.input_size,
            batch=look_ahead,
        )

        on_torch = isinstance(self.estimator, BatchEstimator)
        self._flow_on_cpu = (
            self.device.type == "cpu" and not on_torch
        )  # in threads that torch knows nothing of
        self._runner = FrameRunner(self.model, self.device, self.config.precision)
        if compile:
            compile_or_warn(self.model.parts_to_compile(), self._run_once)
        if graphs and self.device.type == "cuda":
            self._runner = GraphRunner(self.model, self.device, self.config.precision)
        self._default = self.session()

    def warn_of_other_flow(self, folder: Path | None = None) -> None:
        """Log a warning where flow is of another kind than the network was trained on.

        Args:
            folder: Flow maps that will be read; None stands for the segmenter's own estimator.
        """
        used = computed_record(self.flow_method, join=self.join) if folder is None else read_record(folder)
        if mismatch := flow_mismatch(self.trained_flow, used):
            log.warning("masks may suffer from flow unlike that of training: %s", mismatch)

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

        Decoding and flow run in threads of their own, the network in the caller's. Flow leads from each kept frame
        to the very next frame of the source. The last frame of the source has no next one and takes the flow of
        the kept frame before it; a video of one frame shows no motion (white). Where the checkpoint's config says
        ``data.flow_direction=both``, flow is joined with that to the very previous frame
        (`hmhi.flow.compensate.join_directions`); the first kept frame has the forward flow only, the last frame of
        the source minus the backward flow.

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
            UserError: A frame cannot be read, is of another size than the first, or has no stored flow; names
                its number or file. What `open_source` raises comes at once, the rest where the frame is due.
            OSError: A file or a camera fails.
        """
        opened = open_source(source, start=start, end=end, every=every)
        return self._stream(opened, flows, scene_cuts)

    def _stream(
        self, source: Source, flows: Iterable[np.ndarray | Path] | None, scene_cuts: bool
    ) -> Generator[FrameResult, None, None]:
        memory: Memory | None = None
        beside_flow = leave_a_core if flows is None and self._flow_on_cpu else nullcontext
        with closing(self.stage.stream(source, flows, scene_cuts)) as frames:
            for chunk in chunks(frames, self.look_ahead):
                with beside_flow():
                    features, seconds = self.encode(chunk)
                for row, frame in enumerate(chunk):
                    if frame.scene_cut:
                        memory = None
                    rows = slice(row * self.views, (row + 1) * self.views)
                    own = {stage: feature[rows] for stage, feature in features.items()}
                    with beside_flow():
                        (result,), memory = self.advance([frame], own, memory, seconds)
                    yield result

    def segment_many(
        self,
        sources: Sequence[SourceLike],
        *,
        every: int = 1,
        scene_cuts: bool = False,
        at_once: int = 8,
    ) -> Iterator[tuple[int, FrameResult]]:
        """Segment several videos at a time, in batches through the network, each with a memory of its own.

        Videos whose network input is of one size share a batch and go forward in step. One that begins, at its
        first frame or at a scene cut, joins the others once its memory holds as many frames as theirs. Results are
        those of a `stream` of each. A few frames of each video that is open are held.

        Args:
            sources: As for `stream`.
            every: As for `stream`.
            scene_cuts: As for `stream`.
            at_once: Videos that are read at a time, each by two threads; when one ends, the next one is opened.

        Yields:
            Number of the source, from 0, and a result; the results of one source come in order.

        Raises:
            UserError: As for `stream`; ends all of them. Or `at_once` is less than 1.
            OSError: A file or a camera fails.
        """
        check_count("at_once", at_once)
        opened = [open_source(source, every=every) for source in sources]
        return self._segment_many(opened, scene_cuts, at_once)

    def _segment_many(
        self, sources: Sequence[Source], scene_cuts: bool, at_once: int
    ) -> Generator[tuple[int, FrameResult], None, None]:
        waiting = enumerate(sources)
        videos: dict[int, Generator[PreparedFrame, None, None]] = {}
        batches: list[Batch] = []
        beside_flow = leave_a_core if self._flow_on_cpu else nullcontext
        with ExitStack() as stack:
            while True:
                for number, source in islice(waiting, at_once - len(videos)):
                    frames = self.stage.stream(source, None, scene_cuts)
                    videos[number] = stack.enter_context(closing(frames))
                if not videos:
                    return
                next_frames = {number: next(frames, None) for number, frames in videos.items()}
                due = {number: frame for number, frame in next_frames.items() if frame is not None}
                videos = {number: videos[number] for number in due}
                batches = regroup(batches, due, self.views)
                for batch in batches:
                    chunk = [due[number] for number in batch.videos]
                    with beside_flow():
                        features, seconds = self.encode(chunk)
                        results, batch.memory = self.advance(chunk, features, batch.memory, seconds)
                    yield from zip(batch.videos, results, strict=True)

    def session(self) -> VideoSession:
        """Begin a live video; any number may be under way at once."""
        return VideoSession(self)

    def step(self, frame: np.ndarray) -> FrameResult:
        """Segment the next frame of the default session; see `VideoSession.step`."""
        return self._default.step(frame)

    def reset(self) -> None:
        """Forget the video of `step`, so that another one may begin."""
        self._default = self.session()

    @torch.inference_mode()
    def encode(self, frames: Sequence[PreparedFrame]) -> tuple[dict[int, Tensor], float]:
        """Features of all views of a batch of frames, and the seconds that each frame took."""
        begin = time.perf_counter()
        features = self._runner.encode(*view_inputs(frames, self.views))
        return features, (time.perf_counter() - begin) / len(frames)

    @torch.inference_mode()
    def advance(
        self,
        frames: Sequence[PreparedFrame],
        features: dict[int, Tensor],
        memory: Memory | None,
        encode_seconds: float,
    ) -> tuple[list[FrameResult], Memory]:
        """Results of one frame of each video of a batch, and their memory after it."""
        begin = time.perf_counter()
        height, width = frames[0].image_input.shape[1:]
        logits, memory = self._runner.advance(features, (height, width), memory)  # (B * V, 1, h, w)
        probs = []
        for frame, views in zip(frames, logits.split(self.views), strict=True):
            size = (frame.source.image.shape[0], frame.source.image.shape[1])
            probs.append(merge_views(to_probability(views, size, stretch=self.config.stretch)))
        arrays = to_arrays(probs)
        for frame, prob in zip(frames, arrays, strict=True):
            if refines(self.config.refine, frame.source.image.shape[:2], (height, width)):
                prob[0] = refine_edges(frame.source.image, prob[0], (height, width))
        seconds = encode_seconds + (time.perf_counter() - begin) / len(frames)
        results = [
            FrameResult(
                index=frame.source.index,
                time=frame.source.time,
                # Copies: what a caller draws into them must not reach his arrays, or the flow of later frames.
                frame=frame.source.image.copy(),
                labels=(prob[0] > self.config.threshold).astype(np.uint8),
                ids=(1,),
                probs=prob,
                flow=frame.flow.copy(),
                seconds={**frame.seconds, "network": seconds},
                scene_cut=frame.scene_cut,
            )
            for frame, prob in zip(frames, arrays, strict=True)
        ]
        return results, memory

    @torch.inference_mode()
    def _run_once(self) -> None:
        """Two grey frames, for compilation: one without memory, one with it."""
        height, width = self.input_size(480, 854)
        blank = torch.full((3, height, width), 128, dtype=torch.uint8)
        rows = [blank] * self.look_ahead * self.views
        features = self._runner.encode(rows, rows)
        first = {stage: feature[: self.views] for stage, feature in features.items()}
        _, memory = self._runner.advance(first, (height, width), None)
        self._runner.advance(first, (height, width), memory)
