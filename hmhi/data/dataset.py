"""Training clips and streamed videos, from real sets and from the built-in procedural one.

Everything random about a sample follows from (seed, epoch, index), so neither the number of loader
processes nor the place where a run resumes changes what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hmhi.config import DataConfig
from hmhi.data.catalog import SYNTHETIC
from hmhi.data.index import Frame, Video
from hmhi.data.sampling import sample_clip
from hmhi.data.transforms import (
    MEAN_COLOUR,
    Augmentation,
    draw_augmentations,
    resize_flow,
    resize_mask,
    resize_rgb,
    to_chw,
    to_input,
)
from hmhi.errors import BadFileError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.directions import flow_picture, flow_start, still_picture
from hmhi.flow.estimate import FlowEstimator, build_estimator
from hmhi.flow.files import check_shape, read_flow_rgb
from hmhi.media.masks import read_mask
from hmhi.media.pictures import read_rgb
from hmhi.synthetic import render_clip


@dataclass(frozen=True)
class ClipKey:
    """What names one training sample."""

    epoch: int
    index: int
    progress: float = 0.0
    """Share of the run, 0-1, that is done when the epoch begins; a curriculum follows it."""
    scale: float = 1.0
    """Of ``data.image_size``, see `scaled_size`."""


class FrameSample(NamedTuple):
    """One frame of a streamed video."""

    stem: str
    image: torch.Tensor
    """uint8 (3, h, w) at the network's input size."""
    flow: torch.Tensor
    """uint8 (3, h, w), colour wheel."""
    mask: np.ndarray | None
    """uint8 (H, W) in {0, 1} at the source's size, or None where the frame is not annotated."""
    size: tuple[int, int]
    """Height and width of the source."""


class ValVideo(Protocol):
    """A video that streams its frames in order."""

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[FrameSample]: ...


class ClipDataset(Dataset[dict[str, Any]]):
    """Random clips of annotated frames.

    An item is a dict of ``image`` and ``flow`` uint8 (T, 3, h, w), ``mask`` uint8 (T, 1, h, w) in {0, 1},
    ``name`` ("data set/video") and ``frames`` (stems). Frames without a mask are never drawn.
    """

    def __init__(self, videos: Sequence[Video], config: DataConfig, seed: int) -> None:
        self.videos = tuple(videos)
        self.config = config
        self.seed = seed
        self._annotated = [
            tuple(i for i, frame in enumerate(video.frames) if frame.mask is not None) for video in videos
        ]
        empty = [
            f"{v.dataset}/{v.name}" for v, kept in zip(self.videos, self._annotated, strict=True) if not kept
        ]
        if empty:
            raise ValueError(f"videos without any mask cannot be trained on: {', '.join(empty[:5])}")

    def __len__(self) -> int:
        return len(self.videos) * self.config.repeats

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        """Draw the clip of one key.

        Raises:
            BadFileError: A file of the clip cannot be read or does not fit the others.
        """
        rng = np.random.default_rng([self.seed, key.epoch, key.index])
        video = self.videos[key.index % len(self.videos)]
        annotated = self._annotated[key.index % len(self.videos)]
        picks = sample_clip(len(annotated), self.config.clip_frames, rng, self.config.max_gap)
        numbers = [annotated[pick] for pick in picks]
        draws = draw_augmentations(self.config.augment, len(numbers), rng)
        dropped = draw_dropped(self.config.drop_modality, rng)
        size = scaled_size(self.config.image_size, key.scale)
        try:
            parts = [
                self._load(video, number, draw, size) for number, draw in zip(numbers, draws, strict=True)
            ]
        except (BadFileError, OSError) as error:
            raise BadFileError(f"{video.dataset}/{video.name}: {error}") from None
        name, stems = f"{video.dataset}/{video.name}", [video.frames[number].stem for number in numbers]
        return _stack(parts, name, stems, dropped)

    def _load(self, video: Video, number: int, draw: Augmentation, size: tuple[int, int]) -> _Parts:
        frame = video.frames[number]
        image = read_rgb(frame.image)
        flow = _flow_of(video, number, image, self.config)
        mask = _mask_of(frame, image)
        assert mask is not None
        return _finish(image, flow, mask, draw, size, self.config.compensation)


class VideoDataset:
    """Streams one video; at no time more than three decoded frames are held."""

    def __init__(self, video: Video, config: DataConfig) -> None:
        self.video = video
        self.name = video.name
        self.config = config

    def __len__(self) -> int:
        return len(self.video.frames)

    def __iter__(self) -> Iterator[FrameSample]:
        """Yield every frame in order.

        Raises:
            BadFileError: A file cannot be read or does not fit the others.
        """
        for number, frame in enumerate(self.video.frames):
            try:
                image = read_rgb(frame.image)
                flow = _flow_of(self.video, number, image, self.config)
                mask = _mask_of(frame, image)
            except (BadFileError, OSError) as error:
                raise BadFileError(f"{self.video.dataset}/{self.name}: {error}") from None
            yield FrameSample(
                frame.stem,
                to_input(image, self.config.image_size),
                to_chw(resize_flow(flow, self.config.image_size, self.config.compensation)),
                mask,
                (image.shape[0], image.shape[1]),
            )


class SyntheticClips(Dataset[dict[str, Any]]):
    """Clips rendered on the fly, another scene for each (epoch, index); items as from `ClipDataset`."""

    def __init__(self, config: DataConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return self.config.synthetic.videos * self.config.repeats

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        """Render the clip of one key."""
        rng = np.random.default_rng([self.seed, key.epoch, key.index])
        # Training scenes have even seeds, validation scenes odd ones.
        scene = 2 * int(rng.integers(2**31))
        frames, settings = self.config.clip_frames, self.config.synthetic
        # Frames of a real clip lie up to max_gap apart and about half of that on average.
        stride = int(rng.integers(1, (self.config.max_gap + 1) // 2 + 1))
        clip = render_clip(scene, frames, _pair(settings.size), settings.flow, stride, join=self.config.join)
        draws = draw_augmentations(self.config.augment, frames, rng)
        dropped = draw_dropped(self.config.drop_modality, rng)
        size = scaled_size(self.config.image_size, key.scale)
        parts = [
            _finish(
                clip.images[t], flow_to_rgb(clip.flows[t]), clip.masks[t], draws[t], size,
                self.config.compensation,
            )
            for t in range(frames)
        ]  # fmt: skip
        return _stack(parts, f"{SYNTHETIC}/{scene}", _stems(frames), dropped)


class SyntheticVideo:
    """One rendered validation video; the twin of `VideoDataset`."""

    def __init__(self, number: int, config: DataConfig) -> None:
        self.name = f"scene{number:03d}"
        self.config = config
        self._scene = 2 * number + 1

    def __len__(self) -> int:
        return self.config.synthetic.val_frames

    def __iter__(self) -> Iterator[FrameSample]:
        """Render the video, then yield every frame in order."""
        size = self.config.image_size
        settings = self.config.synthetic
        clip = render_clip(self._scene, len(self), _pair(settings.size), settings.flow, join=self.config.join)
        for t, stem in enumerate(_stems(len(self))):
            flow = resize_flow(flow_to_rgb(clip.flows[t]), size, self.config.compensation)
            image = to_input(clip.images[t], size)
            yield FrameSample(stem, image, to_chw(flow), clip.masks[t], _pair(settings.size))


class _Parts(NamedTuple):
    image: torch.Tensor
    flow: torch.Tensor
    mask: torch.Tensor


def scaled_size(image_size: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width of a scaled batch, in multiples of 32; at scale 1 the size itself."""
    height, width = (
        image_size if scale == 1 else (max(1, round(side * scale / 32)) * 32 for side in image_size)
    )
    return height, width


def draw_dropped(chance: float, rng: np.random.Generator) -> Literal["image", "flow"] | None:
    """What a clip does not show; nothing is drawn where the chance is 0."""
    if not chance or rng.random() >= chance:
        return None
    return "image" if rng.random() < 0.5 else "flow"


def _finish(
    image: np.ndarray,
    flow: np.ndarray,
    mask: np.ndarray,
    draw: Augmentation,
    size: tuple[int, int],
    compensation: str,
) -> _Parts:
    """Resize first and change the smaller picture: the same for mirrors, and cheaper for colours."""
    return _Parts(
        to_chw(draw.image(resize_rgb(image, size))),
        to_chw(draw.flow(resize_flow(flow, size, compensation))),
        torch.from_numpy(np.ascontiguousarray(draw.mask(resize_mask(mask, size))))[None],
    )


def _stack(
    parts: list[_Parts], name: str, stems: list[str], dropped: Literal["image", "flow"] | None
) -> dict[str, Any]:
    image, flow = torch.stack([part.image for part in parts]), torch.stack([part.flow for part in parts])
    if dropped == "image":
        image[:] = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
    elif dropped == "flow":
        flow[:] = 255
    return {
        "image": image,
        "flow": flow,
        "mask": torch.stack([part.mask for part in parts]),
        "name": name,
        "frames": stems,
    }


def _flow_of(video: Video, number: int, image: np.ndarray, config: DataConfig) -> np.ndarray:
    """Flow picture of a frame; a still image, and a video of one frame, shows no motion: white."""
    frame, frames = video.frames[number], len(video.frames)
    if config.flow == "dis" and frames > 1:
        return _dis_picture(video, number, image, config.join)
    if frame.flow is None and frames > 1:
        raise BadFileError(f"{frame.image}: no flow map; make one, or set data.flow=dis")
    if frame.flow is None:
        return still_picture(image)
    flow = read_flow_rgb(frame.flow)
    check_shape(flow, image, str(frame.flow))
    return flow


def _dis_picture(video: Video, number: int, image: np.ndarray, join: str | None) -> np.ndarray:
    """Flow picture of a frame by DIS, see `hmhi.flow.directions`."""
    last = len(video.frames) - 1
    forward = _dis_between(video, number, number + 1, image) if number < last else None
    backward = _dis_between(video, number, number - 1, image) if number > 0 and join is not None else None
    picture = flow_picture(forward, backward, join)
    if picture is not None:
        return picture
    start = flow_start(number, len(video.frames))
    return _dis_picture(video, start, read_rgb(video.frames[start].image), None)


def _dis_between(video: Video, start: int, end: int, image: np.ndarray) -> np.ndarray:
    """DIS flow from frame `start`, which shows `image`, to frame `end`."""
    path = video.frames[end].image
    other = read_rgb(path)
    if other.shape != image.shape:
        raise BadFileError(f"{path}: {_size(other)}, but the frame beside it is {_size(image)}")
    return _dis()(image, other)


def _mask_of(frame: Frame, image: np.ndarray) -> np.ndarray | None:
    if frame.mask is None:
        return None
    mask = read_mask(frame.mask)
    if mask.shape != image.shape[:2]:
        raise BadFileError(f"{frame.mask}: mask is {_size(mask)} but its image is {_size(image)}")
    return mask


def _stems(frames: int) -> list[str]:
    return [f"{t:05d}" for t in range(frames)]


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return height, width


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


@lru_cache(maxsize=1)
def _dis() -> FlowEstimator:
    # Made where it is used: the estimator cannot be sent to a loader process.
    return build_estimator("dis")
