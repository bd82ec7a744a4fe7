"""What training and validation need to know of a kind of model; nothing else of them depends on the kind.

B clips, T frames, K objects, H W pixels; h w pixels of the network's input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hmhi.evaluation.protocol as protocols
from hmhi.config import Config, TrainConfig
from hmhi.data.dataset import FrameSample, ValVideo
from hmhi.data.objects import LabelledVideo, ObjectFrame
from hmhi.data.transforms import to_chw, to_input
from hmhi.errors import UserError
from hmhi.evaluation.objects import Floats, mean_of_frames, score_objects, split_labels
from hmhi.evaluation.region import Mask
from hmhi.layers.normalize import Normalize
from hmhi.media.masks import PALETTE, object_ids
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.prompted import PromptedNet
from hmhi.runtime.frames import FrameRunner, to_probability
from hmhi.runtime.object_frames import ObjectRunner, short_side_of
from hmhi.runtime.pipeline import run_ahead
from hmhi.runtime.precision import autocast
from hmhi.training.losses import object_loss, segmentation_loss

AHEAD = 4
"""Frames that may wait between reading, the network and the metrics."""

PICTURE_FRAME = 8
"""Frame of a video that is drawn (the last one of a shorter video): late enough for a full memory."""


@dataclass(frozen=True)
class VideoScore:
    """What validation keeps of one video."""

    entries: Mapping[str, tuple[float, float]]
    """Name of the video, or of each object in it, -> mean J, mean F, both 0-1."""
    picture: Tensor | None = None
    """uint8 (3, h, W), if asked for."""


class Task(Protocol):
    """How one kind of model is trained and scored."""

    values: tuple[str, ...]
    """Scalars that `losses` returns, in the order of the log; ``loss``, the one to minimise, is the first."""

    def losses(self, model: nn.Module, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """One forward pass.

        Args:
            model: The network, or what joins its gradients over ranks; in training mode.
            batch: From the training loader, its tensors on the model's device.
            progress: Share of the run that is done, 0-1.

        Returns:
            A scalar for each of `values`; all but ``loss`` detached.
        """
        ...

    def score(
        self,
        model: nn.Module,
        video: ValVideo | LabelledVideo,
        device: torch.device,
        *,
        protocol: protocols.Protocol,
        draw: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> VideoScore | None:
        """Stream one video and score it at its own resolution, in memory that does not grow with its length.

        Args:
            model: The network, in eval mode.
            video: Frames of one video.
            device: Where the network is.
            protocol: Which frames count.
            draw: Also draw frame `PICTURE_FRAME`.
            stopped: Asked after each frame.

        Returns:
            The scores; None when ``stopped`` said so.

        Raises:
            UserError: No frame has a mask, or none after that which gives the objects.
        """
        ...


def task_of(config: Config) -> Task:
    """The task of a config's kind of model."""
    return UnpromptedTask(config.train) if config.model.kind == "hmhi" else PromptedTask(config)


class UnpromptedTask:
    """Models that find one foreground by themselves, from images and flow."""

    values: tuple[str, ...] = ("loss", "focal", "bce", "dice")

    def __init__(self, config: TrainConfig) -> None:
        self.precision = config.precision
        self.weights = config.loss
        self._normalize = Normalize()

    def losses(self, model: nn.Module, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """See `Task`; `batch` holds ``image`` and ``flow`` uint8 (B, T, 3, H, W), ``mask`` uint8 (B, T, 1, H, W)."""
        device = batch["image"].device
        normalize = self._normalize.to(device)
        with autocast(device, self.precision):
            logits = model(normalize(batch["image"]), normalize(batch["flow"]))  # (B, T, 1, H, W)
        weights = self.weights
        return segmentation_loss(
            logits,
            batch["mask"],
            focal=weights.focal,
            bce=weights.bce,
            dice=weights.dice,
            frames=weights.frames,
        )

    @torch.no_grad()  # not inference_mode: a table that the network caches here must serve training too
    def score(
        self,
        model: nn.Module,
        video: ValVideo | LabelledVideo,
        device: torch.device,
        *,
        protocol: protocols.Protocol,
        draw: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> VideoScore | None:
        """See `Task`. Frames are read, segmented and scored side by side, in a thread each."""
        scores: list[Future[Floats]] = []
        runner = FrameRunner(cast(HMHINet, model), device, self.precision)
        drawn, memory = None, None
        frames = iter(cast(ValVideo, video))
        with closing(run_ahead(frames, AHEAD, f"read {video.name}")) as samples, _Scorer() as scorer:
            for number, sample in enumerate(samples):
                logits, memory = runner.step(sample.image, sample.flow, memory)  # (1, 1, h, w)
                if sample.mask is not None:
                    prediction = (to_probability(logits, sample.size)[0, 0] > 0.5).cpu().numpy()  # (H, W)
                    scores.append(scorer.submit(prediction, sample.mask > 0))
                if draw and number <= PICTURE_FRAME:
                    drawn = sample, logits
                if stopped():
                    return None
        if not scores:
            raise UserError(f"validation video {video.name} has no frame with a mask")
        counted = protocol.counted(scores) or scores  # a short video counts whole
        ((region, boundary),) = mean_of_frames([score.result() for score in counted])
        return VideoScore({video.name: (float(region), float(boundary))}, _picture(*drawn) if drawn else None)


class PromptedTask:
    """Models that follow objects given by masks."""

    values: tuple[str, ...] = ("loss", "ce", "dice")

    def __init__(self, config: Config) -> None:
        self.precision = config.train.precision
        self.weights = config.train.object_loss
        self.infer = config.infer
        self.dropout = config.model.hmmn.fine_dropout if config.model.kind == "hmmn" else [0.0, 0.0]

    def losses(self, model: nn.Module, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """See `Task`; `batch` holds ``image`` uint8 (B, T, 3, H, W), ``labels`` uint8 (B, T, H, W), ``valid``."""
        labels, valid = batch["labels"], batch["valid"]
        numbers = torch.arange(1, valid.shape[1] + 1, device=valid.device)
        given = labels[:, :1] == numbers[:, None, None]  # (B, K, H, W)
        start, end = self.dropout
        with autocast(labels.device, self.precision):
            logits = model(batch["image"].float() / 255, given, valid, dropout=ramp(start, end, progress))
        weights = self.weights
        return object_loss(
            logits,
            labels[:, 1:],
            valid,
            cross_entropy=weights.cross_entropy,
            dice=weights.dice,
            hardest=hardest_share(weights.bootstrap, progress),
        )

    @torch.no_grad()
    def score(
        self,
        model: nn.Module,
        video: ValVideo | LabelledVideo,
        device: torch.device,
        *,
        protocol: protocols.Protocol,
        draw: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> VideoScore | None:
        """See `Task`. Each object is given where it is first annotated, and scored in the annotated frames after."""
        net = cast(PromptedNet, model)
        runner = ObjectRunner(net, device, self.precision, short_side_of(self.infer, net))
        state = net.start()
        scores: list[tuple[Future[Floats], tuple[int, ...]]] = []
        drawn = None
        frames = iter(cast(LabelledVideo, video))
        with closing(run_ahead(frames, AHEAD, f"read {video.name}")) as samples, _Scorer() as scorer:
            for number, sample in enumerate(samples):
                size = (sample.image.shape[0], sample.image.shape[1])
                image = to_input(sample.image, runner.input_size(*size))
                known, truth = state.ids, sample.labels
                new = [] if truth is None else [i for i in object_ids(truth) if i not in known]
                given = {i: truth == i for i in new} if truth is not None else {}
                prob, state = runner.step(image, state, given, size)  # (K + 1, H, W)
                labels = np.array((0, *state.ids), np.uint8)[prob.argmax(dim=0).cpu().numpy()]  # (H, W)
                if truth is not None:
                    pair = split_labels(labels, known), split_labels(truth, known)  # (K, H, W)
                    scores.append((scorer.submit(*pair), known))
                if draw and number <= PICTURE_FRAME:
                    drawn = sample, labels
                if stopped():
                    return None
        counted = protocol.counted(scores) or scores  # a short video counts whole
        entries = {}
        for place, number in enumerate(state.ids):
            values = [score.result()[place] for score, known in counted if number in known]
            if values:
                region, boundary = np.mean(values, axis=0)
                entries[f"{video.name}/{number}"] = float(region), float(boundary)
        if not entries:
            raise UserError(f"validation video {video.name} has no mask after that which gives its objects")
        return VideoScore(entries, _object_picture(*drawn) if drawn else None)


def ramp(start: float, end: float, progress: float) -> float:
    """What goes from `start` to `end` in a straight line while progress goes from 0 to 1."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def hardest_share(bootstrap: Sequence[float], progress: float) -> float:
    """Share of the pixels whose cross-entropy counts; see ``train.object_loss.bootstrap``."""
    if not bootstrap:
        return 1.0
    begin, until, share = bootstrap
    return ramp(1.0, share, (progress - begin) / (until - begin))


class _Scorer:
    """Computes J and F in a thread, and makes whoever submits wait where it falls behind."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._waiting: deque[Future[Floats]] = deque()

    def __enter__(self) -> _Scorer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=exception[0] is not None)

    def submit(self, prediction: Mask, truth: Mask) -> Future[Floats]:
        if len(self._waiting) == AHEAD:
            self._waiting.popleft().result()
        score = self._pool.submit(score_objects, prediction, truth)
        self._waiting.append(score)
        return score


def _object_picture(sample: ObjectFrame, labels: np.ndarray) -> Tensor:
    """Image | truth | prediction, side by side, uint8 (3, H, 3 W); labels are (H, W)."""
    colours = np.array(PALETTE, np.uint8).reshape(-1, 3)
    truth = np.zeros_like(labels) if sample.labels is None else sample.labels
    return to_chw(np.concatenate([sample.image, colours[truth], colours[labels]], axis=1))  # (3, H, 3 W)


def _picture(sample: FrameSample, logits: Tensor) -> Tensor:
    """Image | flow | truth | prediction, side by side, uint8 (3, h, 4 w); logits are (1, 1, h, w)."""
    prob = logits[0, 0].float().sigmoid().cpu()  # (h, w)
    truth = torch.zeros_like(prob)
    if sample.mask is not None:
        mask = torch.from_numpy(sample.mask)[None, None].float()
        truth = F.interpolate(mask, size=prob.shape, mode="nearest")[0, 0]
    grey = [(255 * x).to(torch.uint8).expand(3, -1, -1) for x in (truth, prob)]
    return torch.cat([sample.image.cpu(), sample.flow.cpu(), *grey], dim=2)
