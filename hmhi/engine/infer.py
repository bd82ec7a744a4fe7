"""Segment unseen video, one frame at a time, in memory that does not grow with its length.

Example:
    >>> segmenter = VideoSegmenter("runs/finetune_davis16/ckpt/best.pt")
    >>> for result in segmenter.stream(frames):  # any iterable of (H, W, 3) uint8 RGB frames
    ...     use(result.mask)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.data.transforms import normalize, resize_flow, to_chw, to_input
from hmhi.engine.precision import autocast
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.estimate import FlowEstimator, build_estimator
from hmhi.flow.provenance import computed_record, flow_mismatch, read_record
from hmhi.memory.bank import Memory
from hmhi.models.weights import load_state, model_from

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameResult:
    """What the network says of one frame, at the size of the source."""

    index: int
    """Number of the frame, from 0."""
    frame: np.ndarray
    """(H, W, 3) uint8: the frame itself."""
    mask: np.ndarray
    """(H, W) bool: the salient object."""
    prob: np.ndarray
    """(H, W) float32 in [0, 1]."""
    flow: np.ndarray
    """(H, W, 3) uint8: the flow picture that was read."""


class VideoSegmenter:
    """A network with its weights and all that it needs to read plain video.

    Args:
        checkpoint: A file that `hmhi.load_model` reads.
        device: Where the network runs.
        overrides: Config changes, for example ``infer.flow=raft``, ``infer.image_size=[384,384]``,
            ``model.memory_frames=3``.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of RAFT, do not exist.
        CheckpointError: The checkpoint is damaged or does not fit.
        ConfigError: An override is not valid.
    """

    def __init__(
        self, checkpoint: str | Path, device: str | torch.device = "cpu", overrides: Sequence[str] = ()
    ) -> None:
        self.device = torch.device(device)
        contents = load_state(checkpoint)
        self.model, config = model_from(contents, Path(checkpoint), self.device, overrides)
        self.trained_flow: dict[str, dict[str, str]] = contents.get("flow", {})
        self.config = config.infer
        self.image_size = config.infer.image_size or config.data.image_size
        self.compensation = config.data.compensation
        weights = config.infer.flow_weights
        self.estimator = build_estimator(
            config.infer.flow, str(self.device), None if weights is None else Path(weights)
        )

    def warn_of_other_flow(self, folder: Path | None = None) -> None:
        """Log a warning where flow is of another kind than the network was trained on.

        Args:
            folder: Flow maps that will be read; None stands for the segmenter's own estimator.
        """
        used = computed_record(self.config.flow) if folder is None else read_record(folder)
        if mismatch := flow_mismatch(self.trained_flow, used):
            log.warning("masks may suffer from flow unlike that of training: %s", mismatch)

    def stream(
        self, frames: Iterable[np.ndarray], flows: Iterable[np.ndarray] | None = None
    ) -> Iterator[FrameResult]:
        """Segment a video; nothing is read before it is asked for, and nothing is kept but the memory bank.

        Args:
            frames: (H, W, 3) uint8 RGB, in order.
            flows: Flow pictures of the frames, (h, w, 3) uint8 colour wheel, in the same order; None computes
                forward flow from each frame to the next, and the last frame takes the one before it.

        Raises:
            ValueError: A frame is of another size than the first, or of the wrong type; names its number.
        """
        pairs = zip(frames, flows, strict=True) if flows is not None else with_flow(frames, self.estimator)
        memory: Memory | None = None
        first: tuple[int, ...] | None = None
        for index, (frame, flow) in enumerate(pairs):
            first = first or frame.shape
            if frame.shape != first:
                raise ValueError(f"frame {index} has shape {frame.shape}, but the video began with {first}")
            prob, memory = self._predict(frame, flow, memory)
            yield FrameResult(index, frame, prob > self.config.threshold, prob, flow)

    @torch.inference_mode()
    def _predict(
        self, frame: np.ndarray, flow: np.ndarray, memory: Memory | None
    ) -> tuple[np.ndarray, Memory]:
        inputs = (
            to_input(frame, self.image_size),
            to_chw(resize_flow(flow, self.image_size, self.compensation)),
        )
        image, motion = (normalize(x.to(self.device)[None]) for x in inputs)
        with autocast(self.device, self.config.precision):
            logits, memory = self.model.step(image, motion, memory)
        size = (frame.shape[0], frame.shape[1])
        prob = to_probability(logits, size, stretch=self.config.stretch)
        return prob[0, 0].cpu().numpy(), memory


def default_checkpoint(runs: Path) -> Path:
    """The ``best.pt`` that training wrote last.

    Raises:
        FileNotFoundError: There is none yet.
    """
    found = sorted(runs.glob("*/ckpt/best.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"no checkpoint given and none in {runs}/*/ckpt/best.pt; train one with scripts/quickstart.sh or "
            f"scripts/train.sh, or name one with --checkpoint"
        )
    return found[-1]


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


def with_flow(
    frames: Iterable[np.ndarray], estimator: FlowEstimator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pair each frame with a picture of its forward flow, holding two frames at a time.

    The last frame has no next one and takes the flow of the frame before it; a video of one frame shows no
    motion (white).

    Raises:
        ValueError: Two neighbours differ in size; names the frame.
    """
    previous: np.ndarray | None = None
    flow: np.ndarray | None = None
    for index, frame in enumerate(frames):
        if previous is not None:
            if frame.shape != previous.shape:
                raise ValueError(
                    f"frame {index} has shape {frame.shape}, but frame {index - 1} has {previous.shape}"
                )
            flow = flow_to_rgb(estimator(previous, frame))
            yield previous, flow
        previous = frame
    if previous is not None:
        yield previous, np.full_like(previous, 255) if flow is None else flow
