"""Videos in, masks and overlays out; what is written appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from PIL import Image

from hmhi.data.media import (
    FLOW_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_sequence,
    list_files,
    list_sequences,
    read_flow_rgb,
    read_rgb,
)
from hmhi.engine.infer import FrameResult
from hmhi.flow.files import write_atomically
from hmhi.viz.overlay import draw_overlay

FRAME_FOLDER_FPS = 24.0  # of an overlay whose source is a folder of frames
PALETTE = [0, 0, 0, 128, 0, 0]  # DAVIS: background black, first object dark red
TRUTH_FOLDERS = {"JPEGImages": "Annotations", "Images": "Annotations", "frame": "mask"}


@dataclass(frozen=True)
class SourceVideo:
    """A sequence of frames to segment; files are opened one at a time."""

    name: str
    frames: tuple[Path, ...]
    flows: tuple[Path, ...] | None
    fps: float

    def read_frames(self) -> Iterator[np.ndarray]:
        """Decode the frames in order, (H, W, 3) uint8 each."""
        return map(read_rgb, self.frames)

    def read_flows(self) -> Iterator[np.ndarray] | None:
        """Decode the stored flow pictures in order, if there are any."""
        return None if self.flows is None else map(read_flow_rgb, self.flows)


def find_videos(source: Path, flow: Path | None = None, names: Sequence[str] = ()) -> list[SourceVideo]:
    """List what a path holds: frames (one video), or folders and video files with frames (several).

    Args:
        source: Folder of frames, folder of sequences, or a video file.
        flow: Folder laid out like source, with a flow map for each frame; the last frame's may be missing.
        names: Only these sequences; empty takes all.

    Raises:
        FileNotFoundError: The path does not exist, or holds no frames.
        ValueError: Frames lack flow maps, or a name is not there; lists them all.
    """
    if not source.exists():
        raise FileNotFoundError(f"input not found: {source}")
    if flow is not None and not flow.is_dir():
        raise FileNotFoundError(f"flow folder not found: {flow}")
    own_frames = source.is_file() or bool(list_files(source, IMAGE_SUFFIXES))
    sequences = {source.stem if source.is_file() else source.resolve().name: source} if own_frames else {}
    if not own_frames:
        found = ((name, find_sequence(source, name)) for name in list_sequences(source))
        sequences = {name: path for name, path in found if path is not None}
    unknown = [name for name in names if name not in sequences]
    if unknown:
        raise ValueError(f"no such sequence in {source}: {', '.join(unknown)}")

    videos, problems = [], []
    for name, path in sequences.items():
        if names and name not in names:
            continue
        frames = tuple(list_files(path, IMAGE_SUFFIXES))
        if not frames:
            continue
        if len({frame.stem for frame in frames}) < len(frames):
            raise ValueError(
                f"{path}: two frames share one name, such as 1.jpg and 1.png; rename or remove one"
            )
        flows = None
        if flow is not None:
            folder = find_sequence(flow, name) or (flow if own_frames else None)
            flows = _match_flow(frames, [] if folder is None else list_files(folder, FLOW_SUFFIXES))
            if flows is None:
                problems.append(name)
        videos.append(SourceVideo(name, frames, flows, _fps(path)))
    if problems:
        raise ValueError(
            f"{flow} lacks flow maps (one for each frame but the last, same stems) for: {', '.join(problems)}; "
            f"leave --flow out to compute flow"
        )
    if not videos:
        raise FileNotFoundError(f"no frames or videos in {source}; expected images, or folders of images")
    return videos


def truth_folder(source: Path) -> Path | None:
    """Where the masks of a data set's frame folder lie, by the layouts of docs/DATA.md; None if nowhere."""
    parts = source.resolve().parts
    for images, truth in TRUTH_FOLDERS.items():
        if images in parts:
            at = len(parts) - 1 - parts[::-1].index(images)
            folder = Path(*parts[:at], truth, *parts[at + 1 :])
            if folder.is_dir():
                return folder
    return None


class ResultWriter:
    """Writes one video's results; they take their final names together, when the ``with`` block ends well.

    Args:
        output: Folder that receives ``masks/<video>/``, ``prob/<video>/`` and ``overlay/<video>.mp4``.
        video: What is being segmented.
        prob: Write 8-bit probabilities too.
        overlay: Write a video with the mask drawn in too.
    """

    def __init__(
        self, output: Path, video: SourceVideo, *, prob: bool = False, overlay: bool = False
    ) -> None:
        self.video = video
        self.masks = output / "masks" / video.name
        self.prob = output / "prob" / video.name if prob else None
        self.overlay = output / "overlay" / f"{video.name}.mp4" if overlay else None
        # masks last: once they have their name, the video is done
        self._targets = [path for path in (self.overlay, self.prob, self.masks) if path is not None]
        self._encoder: cv2.VideoWriter | None = None

    @property
    def done(self) -> bool:
        """Whether an earlier run finished this video."""
        return all(path.exists() for path in self._targets)

    def __enter__(self) -> ResultWriter:
        for path in self._targets:
            _remove(_partial(path))
            folder = _partial(path) if path != self.overlay else path.parent
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, result: FrameResult) -> None:
        """Add a frame."""
        name = f"{self.video.frames[result.index].stem}.png"
        write_mask(_partial(self.masks) / name, result.mask)
        if self.prob is not None:
            Image.fromarray(to_levels(result.prob)).save(_partial(self.prob) / name)
        if self.overlay is not None:
            self._encode(draw_overlay(result.frame, result.mask))

    def _encode(self, picture: np.ndarray) -> None:
        assert self.overlay is not None
        height, width = picture.shape[:2]
        if self._encoder is None:
            path = _partial(self.overlay)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            # an even size, which every player decodes
            size = (width + width % 2, height + height % 2)
            self._encoder = cv2.VideoWriter(str(path), code, self.video.fps, size)
            if not self._encoder.isOpened():
                raise OSError(f"OpenCV cannot write the video {path}; leave --overlay out")
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        self._encoder.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder is not None:
            self._encoder.release()
        for path in self._targets:
            if kind is None:
                _remove(path)
                _partial(path).rename(path)
            else:
                _remove(_partial(path))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask as a palette PNG with the values {0, 1}, in DAVIS's colours.

    Args:
        path: File to write; its folder is made.
        mask: (H, W) bool.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(PALETTE)
    image.save(path)


def to_levels(prob: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] to uint8, rounded down as the release does."""
    return (prob * 255).astype(np.uint8)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    with write_atomically(path) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def _partial(path: Path) -> Path:
    """Where a file or folder grows: beside its final place, hidden, with its suffix kept for encoders."""
    return path.with_name(f".partial-{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _match_flow(frames: Sequence[Path], flows: Sequence[Path]) -> tuple[Path, ...] | None:
    """Flow files in the order of the frames; the last one repeated if only it is missing."""
    by_stem = {path.stem: path for path in flows}
    if len(frames) > 1 and frames[-1].stem not in by_stem and frames[-2].stem in by_stem:
        by_stem[frames[-1].stem] = by_stem[frames[-2].stem]
    if any(frame.stem not in by_stem for frame in frames):
        return None
    return tuple(by_stem[frame.stem] for frame in frames)


def _fps(path: Path) -> float:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return FRAME_FOLDER_FPS
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return fps if fps > 0 else FRAME_FOLDER_FPS
