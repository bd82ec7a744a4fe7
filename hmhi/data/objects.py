"""Clips and videos whose objects have labels of their own, for networks that are given masks.

A clip's objects are those visible in its first frame. As in `hmhi.data.dataset`, everything random about a sample
follows from (seed, epoch, index), and the curriculum from the key's progress: a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hmhi.config import DataConfig
from hmhi.data.catalog import SYNTHETIC, get_spec
from hmhi.data.dataset import ClipKey, scaled_size
from hmhi.data.index import Frame, Video, scan
from hmhi.data.sampling import sample_gaps, sample_reach, skip_at
from hmhi.data.transforms import draw_object_augmentations, to_chw
from hmhi.errors import BadFileError, UserError
from hmhi.media.masks import VOID, object_ids, read_labels
from hmhi.media.pictures import read_rgb
from hmhi.synthetic import MAX_OBJECTS, render_clip

WINDOW_TRIES = 5
"""Windows of a clip that are drawn until its first frame shows an object."""
CLIP_TRIES = 20
"""Clips that are drawn until one shows an object."""


class ObjectFrame(NamedTuple):
    """One frame of a streamed video."""

    stem: str
    image: np.ndarray
    """(H, W, 3) uint8 RGB, at the size of the source."""
    labels: np.ndarray | None
    """(H, W) uint8 ids as stored, 0 for background and void; None where the frame is not annotated."""


class LabelledVideo(Protocol):
    """A video that streams its frames in order."""

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ObjectFrame]: ...


class ObjectClipDataset(Dataset[dict[str, Any]]):
    """Random clips of annotated frames with the labels of their objects.

    An item is a dict of ``image`` uint8 (T, 3, h, w), ``labels`` uint8 (T, h, w) in 0..K, ``valid`` bool
    (``data.objects``), true for the K objects that there are, ``objects`` (K), ``ids`` (of label 1..K, as stored),
    ``name`` ("data set/video") and ``frames`` (stems).

    Args:
        videos: Of one data set.
        config: What is drawn.
        seed: Of every draw.
    """

    def __init__(self, videos: Sequence[Video], config: DataConfig, seed: int) -> None:
        annotated = [tuple(frame for frame in video.frames if frame.mask is not None) for video in videos]
        empty = [f"{v.dataset}/{v.name}" for v, kept in zip(videos, annotated, strict=True) if not kept]
        if empty:
            raise UserError(f"videos without any mask cannot be trained on: {', '.join(empty[:5])}")
        self.videos = tuple(videos)
        self.config = config
        self.seed = seed
        self._annotated = annotated

    def __len__(self) -> int:
        return len(self.videos) * self.config.repeats

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        """Draw the clip of one key.

        Raises:
            BadFileError: A file of the clip cannot be read or does not fit the others, or `CLIP_TRIES` clips in a
                row show no object.
        """
        rng = np.random.default_rng([self.seed, key.epoch, key.index])
        number = key.index % len(self.videos)
        for _ in range(CLIP_TRIES):
            video = self.videos[number]
            frames = self._choose(number, key.progress, rng)
            try:
                pairs = {frame.stem: _read(frame) for frame in frames}
            except (BadFileError, OSError) as error:
                raise BadFileError(f"{video.dataset}/{video.name}: {error}") from None
            if len({image.shape for image, _ in pairs.values()}) > 1:
                raise BadFileError(
                    f"{video.dataset}/{video.name}: its images differ in size; resize them to one"
                )
            images, labels = zip(*(pairs[frame.stem] for frame in frames), strict=True)
            item = draw_item(images, labels, self.config, rng, key.scale)
            if item is not None:
                names = {"name": f"{video.dataset}/{video.name}", "frames": [frame.stem for frame in frames]}
                return {**item, **names}
            number = int(rng.integers(len(self.videos)))
        raise BadFileError(
            f"{self.videos[0].dataset}: {CLIP_TRIES} clips in a row show no object in their first frame; do "
            f"its masks hold objects, and are the windows of data.augment.crop large enough?"
        )

    def _choose(self, number: int, progress: float, rng: np.random.Generator) -> list[Frame]:
        annotated, config = self._annotated[number], self.config
        sample = sample_gaps if config.sampler == "gaps" else sample_reach
        max_skip = skip_at(config.curriculum, progress, config.max_gap)
        step = get_spec(self.videos[number].dataset).step
        picks = sample(len(annotated), config.clip_frames, rng, max_skip, step)
        if rng.random() < config.reverse:
            picks = picks[::-1]
        return [annotated[pick] for pick in picks]


class SyntheticObjectClips(Dataset[dict[str, Any]]):
    """Clips rendered on the fly with up to ``data.objects`` objects; items as from `ObjectClipDataset`."""

    def __init__(self, config: DataConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return self.config.synthetic.videos * self.config.repeats

    def __getitem__(self, key: ClipKey) -> dict[str, Any]:
        """Render the clip of one key."""
        rng = np.random.default_rng([self.seed, key.epoch, key.index])
        config, size = self.config, self.config.synthetic.size
        largest = skip_at(config.curriculum, key.progress, config.max_gap)
        for _ in range(CLIP_TRIES):
            scene = 2 * int(
                rng.integers(2**31)
            )  # training scenes have even seeds, validation scenes odd ones
            stride = int(rng.integers(largest + 1)) + 1
            movers = int(rng.integers(1, min(config.objects, MAX_OBJECTS) + 1))
            clip = render_clip(scene, config.clip_frames, (size[0], size[1]), stride=stride, objects=movers)
            turn = -1 if rng.random() < config.reverse else 1
            item = draw_item([*clip.images[::turn]], [*clip.labels[::turn]], config, rng, key.scale)
            if item is not None:
                stems = [f"{t:05d}" for t in range(config.clip_frames)][::turn]
                return {**item, "name": f"{SYNTHETIC}/{scene}", "frames": stems}
        raise RuntimeError(f"{CLIP_TRIES} synthetic clips in a row show no object")


class ObjectVideo:
    """Streams one video of a data set; one decoded frame is held at a time."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.name = video.name

    def __len__(self) -> int:
        return len(self.video.frames)

    def __iter__(self) -> Iterator[ObjectFrame]:
        """Yield every frame in order.

        Raises:
            BadFileError: A file cannot be read or does not fit the others.
        """
        for frame in self.video.frames:
            try:
                image, labels = _read(frame)
            except (BadFileError, OSError) as error:
                raise BadFileError(f"{self.video.dataset}/{self.name}: {error}") from None
            yield ObjectFrame(frame.stem, image, labels if frame.mask is not None else None)


class SyntheticObjectVideo:
    """One rendered validation video; the twin of `ObjectVideo`."""

    def __init__(self, number: int, config: DataConfig) -> None:
        self.name = f"scene{number:03d}"
        self.config = config
        self._number = number

    def __len__(self) -> int:
        return self.config.synthetic.val_frames

    def __iter__(self) -> Iterator[ObjectFrame]:
        """Render the video, then yield every frame in order."""
        height, width = self.config.synthetic.size
        movers = 1 + self._number % min(self.config.objects, MAX_OBJECTS)
        clip = render_clip(2 * self._number + 1, len(self), (height, width), objects=movers)
        for t in range(len(self)):
            yield ObjectFrame(f"{t:05d}", clip.images[t], clip.labels[t])


def build_object_videos(config: DataConfig, dataset: str) -> list[LabelledVideo]:
    """The validation videos of a data set, all frames of each, label maps where there are some.

    Raises:
        ConfigError: The name is unknown.
        DatasetNotFoundError: The data set is not below ``config.root``.
        DatasetError: Its files are missing or do not match.
    """
    if dataset == SYNTHETIC:
        return [SyntheticObjectVideo(number, config) for number in range(config.synthetic.val_videos)]
    return [
        ObjectVideo(video)
        for video in scan(Path(config.root), dataset, "val", need_flow=False, need_mask=True)
    ]


def draw_item(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    config: DataConfig,
    rng: np.random.Generator,
    scale: float,
) -> dict[str, Any] | None:
    """Augment a decoded clip and choose its objects; None where no window of `WINDOW_TRIES` shows one.

    Args:
        images: (H, W, 3) uint8 RGB of each frame.
        labels: (H, W) uint8 ids of each frame.
        config: What is drawn.
        rng: Source of every draw.
        scale: Of ``data.image_size``.

    Returns:
        ``image``, ``labels``, ``valid``, ``objects`` and ``ids``, see `ObjectClipDataset`.
    """
    height, width = scaled_size(config.image_size, scale)
    source = (images[0].shape[0], images[0].shape[1])
    for _ in range(WINDOW_TRIES):
        draws = draw_object_augmentations(config.augment, source, (height, width), len(images), rng)
        first = draws[0].labels(labels[0])
        if visible := object_ids(first):
            break
    else:
        return None
    count = min(len(visible), config.objects)
    ids = sorted(int(label) for label in rng.choice(visible, count, replace=False))
    renumber = np.zeros(256, np.uint8)
    renumber[ids] = np.arange(1, count + 1)
    maps = [first, *(draw.labels(of) for draw, of in zip(draws[1:], labels[1:], strict=True))]
    return {
        "image": torch.stack([to_chw(draw.image(of)) for draw, of in zip(draws, images, strict=True)]),
        "labels": torch.from_numpy(renumber[np.stack(maps)]),
        "valid": torch.arange(config.objects) < count,
        "objects": count,
        "ids": ids,
    }


def _read(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Image and label map of a frame, void as background; no label anywhere where it is not annotated."""
    image = read_rgb(frame.image)
    if frame.mask is None:
        return image, np.zeros(image.shape[:2], np.uint8)
    labels = read_labels(frame.mask)
    if labels.shape != image.shape[:2]:
        raise BadFileError(
            f"{frame.mask}: mask is {labels.shape[1]}x{labels.shape[0]} but its image is "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    return image, np.where(labels == VOID, np.uint8(0), labels)
