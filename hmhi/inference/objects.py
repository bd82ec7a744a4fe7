"""Follow objects that masks name through unseen video, in memory that does not grow with its length.

Example:
    >>> segmenter = ObjectSegmenter()  # the bundled weights, or a checkpoint
    >>> for result in segmenter.stream("walk.mp4", "first.png"):  # or a folder of masks, or arrays
    ...     use(result.labels)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hmhi.data.transforms import to_input
from hmhi.errors import UserError, check_count
from hmhi.inference.base import EMBEDDED_OBJECTS, compile_or_warn, describe, find_device, load_network
from hmhi.inference.flow_stage import AHEAD
from hmhi.inference.prompts import (
    GivenMasks,
    MaskLike,
    MasksLike,
    MaskUse,
    check_found,
    open_masks,
    split_mask,
)
from hmhi.inference.results import FrameResult
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.session import check_frame
from hmhi.inference.sources import Source, SourceFrame, SourceLike, open_source
from hmhi.memory.objects import ObjectState
from hmhi.models.prompted import PromptedNet
from hmhi.models.weights import checkpoint_kind
from hmhi.runtime.object_frames import ObjectRunner, resize_mask, short_side_of
from hmhi.runtime.pipeline import run_ahead
from hmhi.runtime.precision import autocast

log = logging.getLogger(__name__)


class PromptedFrame(NamedTuple):
    """A frame as the network reads it. H W pixels of the source, h w of the network's input."""

    source: SourceFrame
    image_input: Tensor
    """(3, h, w) uint8."""
    given: dict[int, np.ndarray]
    """Id to (H, W) bool."""
    seconds: float
    """That decoding and resizing took."""


class ObjectSegmenter:
    """A network that follows objects given by masks, with its weights and all that it needs to read plain video.

    One segmenter may run any number of streams and sessions at once, also from different threads; each has a memory
    of its own.

    Args:
        checkpoint: A file that `hmhi.load_model` reads, of HMMN or STMA; None takes the bundled weights, of HMMN.
        device: Where the network runs; ``auto`` is the first GPU, or the CPU where there is none.
        short_side: Pixels of the short side of the network's input, aspect kept; None takes what the checkpoint says,
            or 480.
        amp: Run in bf16 where the device has it, else in fp16 on GPUs; on other CPUs change nothing.
        compile: Compile the encoders and the decoder, here and now. Where torch cannot, a warning says so.
        overrides: Further config changes, for example ``model.hmmn.memory_frames=16``.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: A setting is not valid.
        UserError: The checkpoint holds a network that takes no masks, or there is no such device.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str | torch.device = "auto",
        *,
        short_side: int | None = None,
        amp: bool = False,
        compile: bool = False,
        overrides: Sequence[str] = (),
    ) -> None:
        if short_side is not None:
            check_count("short_side", short_side)
        self.device = find_device(device)
        network = load_network(checkpoint or EMBEDDED_OBJECTS, self.device, overrides, amp=amp)
        if not isinstance(network.model, PromptedNet):
            raise UserError(
                f"{checkpoint} holds {describe(network.model)}; use hmhi.VideoSegmenter, or a checkpoint of HMMN or "
                f"STMA"
            )
        self.model, self.config = network.model, network.config.infer
        for name in ("refine", "tta"):
            if getattr(self.config, name) not in ("none", "auto"):
                raise UserError(
                    f"infer.{name}={getattr(self.config, name)} is for HMHI-Net, and {checkpoint} holds "
                    f"{describe(network.model)}; leave it out"
                )
        self.traits = self.model.traits
        side = short_side or short_side_of(self.config, self.model)
        self._runner = ObjectRunner(self.model, self.device, self.config.precision, side)
        self.input_size = self._runner.input_size
        if compile:
            compile_or_warn(self.model.parts_to_compile(), self._run_twice)

    def stream(
        self,
        source: SourceLike,
        masks: MasksLike | None,
        *,
        use_masks: MaskUse = "new",
        objects: Collection[int] = (),
        merged: bool = False,
        start: int | str | None = None,
        end: int | str | None = None,
        every: int = 1,
    ) -> Generator[FrameResult, None, None]:
        """Follow objects through a video, reading no more than a few frames ahead.

        Decoding runs in a thread of its own, the network in the caller's. Frames before the first mask are
        background.

        Args:
            source: See `hmhi.inference.sources.open_source`; generators are run in another thread.
            masks: A picture of ids or an (H, W) array, for the first frame that is read; a mapping of frame numbers
                to such, or to masks by id; or a folder of pictures, see `hmhi.inference.prompts.open_masks`.
            use_masks: Which masks of a folder count: ``new``, each object's first one; ``first``, those of the first
                file alone; ``all``, later ones correct. Those of a mapping all count.
            objects: Ids that are followed; empty for all.
            merged: Take all objects for one, with the id 1.
            start: As for `open_source`.
            end: As for `open_source`.
            every: As for `open_source`.

        Raises:
            UserError: A frame or a mask cannot be used; names its number or file. What `open_source` and `open_masks`
                raise comes at once, the rest where the frame is due.
            OSError: A file or a camera fails.
        """
        opened = open_source(source, start=start, end=end, every=every)
        given = open_masks(masks, opened, use=use_masks, objects=objects, merged=merged)
        return self._stream(opened, given)

    def _stream(self, source: Source, masks: GivenMasks) -> Generator[FrameResult, None, None]:
        state = self.model.start()
        with closing(run_ahead(self._read(source, masks), AHEAD, f"decode {source.name}")) as frames:
            for frame in frames:
                result, state = self.advance(frame, state)
                yield result
        if not state.ids:
            raise UserError(
                f"{source.name}: no mask of {masks.name} shows an object at a frame that is read; give the mask of a "
                f"frame between start and end"
            )
        if missing := masks.objects - set(state.ids):
            names = ", ".join(map(str, sorted(missing)))
            log.warning("%s: object %s is wanted, but no mask of %s shows it", source.name, names, masks.name)

    def _read(self, source: Source, masks: GivenMasks) -> Generator[PromptedFrame, None, None]:
        known: set[int] = set()
        first = True
        with closing(source.neighbours(following=False)) as frames:
            begin = time.perf_counter()
            for frame, _, _ in frames:
                size = frame.image.shape[0], frame.image.shape[1]
                given = masks.at(frame.index, size, known, first=first)
                known |= given.keys()
                first = False
                yield self.prepare(frame, given, begin)
                begin = time.perf_counter()

    def prepare(self, frame: SourceFrame, given: Mapping[int, np.ndarray], begin: float) -> PromptedFrame:
        """Bring a frame and its masks to the size of the network's input.

        Args:
            frame: The frame.
            given: Id to (H, W) bool, not empty.
            begin: Time of `time.perf_counter` when work on the frame began.

        Raises:
            UserError: A mask is too small for that size.
        """
        size = self.input_size(frame.image.shape[0], frame.image.shape[1])
        for number, mask in given.items():
            if not resize_mask(torch.from_numpy(mask), size).any():
                raise UserError(
                    f"frame {frame.index}: object {number} has {np.count_nonzero(mask)} pixels, and none is "
                    f"left at the size of the network's input, {size[1]} x {size[0]}; mark more of it, or choose a "
                    f"larger short side"
                )
        image = to_input(frame.image, size)
        return PromptedFrame(frame, image, dict(given), time.perf_counter() - begin)

    @torch.inference_mode()
    def advance(self, frame: PromptedFrame, state: ObjectState) -> tuple[FrameResult, ObjectState]:
        """The result of a frame, and what is remembered after it; the state given is left as it was."""
        begin = time.perf_counter()
        size = frame.source.image.shape[0], frame.source.image.shape[1]
        prob, state = self._runner.step(frame.image_input, state, frame.given, size)  # (K + 1, H, W)
        places = prob.argmax(dim=0).cpu().numpy()  # (H, W)
        result = FrameResult(
            index=frame.source.index,
            time=frame.source.time,
            frame=frame.source.image.copy(),  # a caller may draw into it, and it may be his own array
            labels=np.array((0, *state.ids), np.uint8)[places],
            ids=state.ids,
            probs=prob[1:].float().cpu().numpy(),
            flow=None,
            seconds={"decode": frame.seconds, "network": time.perf_counter() - begin},
            scene_cut=False,
            given=tuple(frame.given),
        )
        return result, state

    def session(self) -> ObjectSession:
        """Begin a live video; any number may be under way at once."""
        return ObjectSession(self)

    @torch.inference_mode()
    def _run_twice(self) -> None:
        """Two grey frames, for compilation: one with a mask, one that reads the memory."""
        height, width = self.input_size(480, 854)
        image = torch.full((1, 3, height, width), 0.5, device=self.device)
        mask = torch.zeros(height, width, dtype=torch.bool, device=self.device)
        mask[: height // 2] = True
        with autocast(self.device, self.config.precision):
            _, state = self.model.step(image, self.model.start(), {1: mask})
            self.model.step(image, state)


class ObjectSession:
    """A live video: each frame is segmented when it comes. Objects may join, be corrected and leave at any frame.

    Made by `ObjectSegmenter.session`. All that it knows is a value, so that a copy costs nothing and going back is
    possible.
    """

    def __init__(self, segmenter: ObjectSegmenter) -> None:
        self._segmenter = segmenter
        self._state = segmenter.model.start()
        self._index = 0
        self._shape: tuple[int, ...] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects that are followed."""
        return self._state.ids

    def step(self, frame: np.ndarray, mask: MaskLike | None = None) -> FrameResult:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, or what `hmhi.media.pictures.to_rgb` makes such.
            mask: Of some objects in this frame: a picture of ids, (H, W) ids or bool, or id to (H, W) bool. New ids
                join, known ones are corrected; objects that it does not name go on, but not where it names another.

        Raises:
            UserError: Frame or mask cannot be used; the video goes on as if they had not been given.
        """
        begin = time.perf_counter()
        image = check_frame(frame, self._index, self._shape)
        given: dict[int, np.ndarray] = {}
        if mask is not None:
            where = f"the mask of frame {self._index}" if not isinstance(mask, str | Path) else str(mask)
            given = split_mask(mask, (image.shape[0], image.shape[1]), where)
            check_found(given, where)
        prepared = self._segmenter.prepare(SourceFrame(self._index, None, image), given, begin)
        result, self._state = self._segmenter.advance(prepared, self._state)
        self._index, self._shape = self._index + 1, image.shape
        return result

    def remove(self, ids: Collection[int]) -> None:
        """Follow some objects no longer.

        Raises:
            UserError: One of them is not followed; nothing changes.
        """
        self._state = self._state.without(ids)

    def copy(self) -> ObjectSession:
        """A session that stands where this one does, and goes its own way."""
        other = ObjectSession(self._segmenter)
        other._state, other._index, other._shape = self._state, self._index, self._shape
        return other


def open_segmenter(
    checkpoint: str | Path | None = None, device: str | torch.device = "auto", **options: Any
) -> VideoSegmenter | ObjectSegmenter:
    """The segmenter that a checkpoint asks for.

    Args:
        checkpoint: A file that `hmhi.load_model` reads; None takes the bundled weights of HMHI-Net.
        device: Where the network runs.
        **options: Further arguments of `VideoSegmenter` or `ObjectSegmenter`.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: A setting is not valid.
        UserError: As the class that fits.
    """
    if checkpoint is None or checkpoint_kind(checkpoint) == "hmhi":
        return VideoSegmenter(checkpoint, device, **options)
    return ObjectSegmenter(checkpoint, device, **options)
