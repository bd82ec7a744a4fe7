"""What ``--input`` may name: one video, several of them, or a data set."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hmhi.data.catalog import DATASETS
from hmhi.data.index import SplitLayout, find_layout
from hmhi.errors import BadFileError, UserError
from hmhi.flow.directions import complete_maps
from hmhi.flow.estimate import METHODS
from hmhi.inference.sources import CAMERA, Source, open_source
from hmhi.media.files import match_files
from hmhi.media.names import safe_name
from hmhi.media.packs import FLOW_SUFFIXES, IMAGE_SUFFIXES, PACK_SUFFIXES, find_sequence, list_files

TRUTH_FOLDERS = {"JPEGImages": "Annotations", "Images": "Annotations", "frame": "mask"}
STORED = "stored"
"""In the place of a flow folder: the maps of the data set itself."""


@dataclass(frozen=True)
class InputVideo:
    """A video to segment; nothing of it is open."""

    name: str
    source: str | Path | tuple[Path, ...]
    """What `hmhi.inference.sources.open_source` opens: a camera's name, a path, or paths of frames."""
    flows: tuple[Path, ...] | None = field(default=None, repr=False)
    """Stored flow map of each frame."""
    masks: Path | None = None
    """Masks of its objects, see `hmhi.inference.prompts.open_masks`."""
    merged: bool = False
    """Whether all its objects are one."""
    listed: frozenset[str] | None = field(default=None, repr=False)
    """Stems of the frames whose masks are wanted; None for all."""

    @property
    def live(self) -> bool:
        """Whether it is a camera, which has no end of its own."""
        return isinstance(self.source, str)

    @property
    def file(self) -> Path | None:
        """The video file that it is, if it is one."""
        path = self.source
        images = IMAGE_SUFFIXES | {".zip"}
        return (
            path if isinstance(path, Path) and path.is_file() and path.suffix.lower() not in images else None
        )

    @property
    def origin(self) -> str:
        """Where it comes from, in a form that the working directory does not change."""
        return self.source if isinstance(self.source, str) else str(Path(_show(self.source)).resolve())

    @cached_property
    def frames(self) -> tuple[Path, ...]:
        """Paths of the frames, which `hmhi.media.pictures.read_rgb` reads; those of a video file are counted first.

        Raises:
            BadFileError: A zip or video file is damaged.
        """
        return self.source if isinstance(self.source, tuple) else tuple(_frames(Path(self.source)))

    def open(self, *, start: str | None, end: str | None, every: int, fps: float) -> Source:
        """Open it, see `open_source`; `fps` is the rate of frames that are files."""
        images = self.file is None and not self.live
        return open_source(self.source, start=start, end=end, every=every, fps=fps if images else None)


@dataclass(frozen=True)
class VideoInputs:
    """What ``--input`` and ``--flow`` name."""

    videos: list[InputVideo]
    flow: Path | None
    """Folder of stored flow; None computes it."""
    truth: Path | None
    """Folder of annotations that belong to the videos, if one is known."""
    dataset: str | None
    folders: list[Path]
    """Folders that are read, in which nothing may be written."""
    layout: SplitLayout | None = None
    """Where the data set lies."""


def find_inputs(
    source: str, flow: str | None = None, names: Sequence[str] = (), data_root: Path = Path("data")
) -> VideoInputs:
    """Find the videos that a text names: a path, a glob pattern, ``camera:0``, or else a data set.

    Args:
        source: As `find_videos` takes it, or a name of `hmhi.data.catalog` that is no path. Of a data set it is
            the validation videos (the training videos, where it has no others), with its stored flow if it has
            any.
        flow: Folder of stored flow; `STORED` for that of the data set; or an estimator's name, for none. None
            takes what a data set has, and nothing otherwise.
        names: Only these videos; empty takes all.
        data_root: Folder that holds the data sets.

    Raises:
        FileNotFoundError: Nothing is there, or no frames.
        UserError: Files do not match; the message lists them.
    """
    if source not in DATASETS or Path(source).exists():
        if flow == STORED:
            raise UserError(
                f"--flow stored belongs to a data set's name, and {source} is none; name a folder"
            )
        folder = None if flow is None or flow in METHODS else Path(flow)
        videos = find_videos(source, folder, names)
        folders = [Path(source)] if Path(source).is_dir() else [*filter(None, map(_folder_of, videos))]
        return VideoInputs(
            videos, folder, truth_folder(Path(source)), None, folders + ([folder] if folder else [])
        )
    spec = DATASETS[source]
    if spec.still:
        raise UserError(f"{source} holds single images, not videos")
    layout = find_layout(data_root, spec, "val" if "val" in spec.splits else "train")
    folder = None
    if flow is None or flow == STORED:
        folder = layout.flows if layout.flows.is_dir() else None
        if folder is None and flow == STORED:
            raise FileNotFoundError(
                f"{source} has no stored flow: expected the folder {layout.flows}; python tools/make_flow.py "
                f"writes it, or leave --flow out to compute flow"
            )
    elif flow not in METHODS:
        folder = Path(flow)
    videos = find_videos(layout.images, folder, names or layout.videos)
    truth = layout.masks if layout.masks.is_dir() else None
    return VideoInputs(videos, folder, truth, source, [layout.images, *([folder] if folder else [])], layout)


def find_videos(source: str | Path, flow: Path | None = None, names: Sequence[str] = ()) -> list[InputVideo]:
    """List the videos that a path, a pattern or a camera's name stands for.

    Args:
        source: A file (video, zip or image), a folder of frames, a folder of such folders and files, a glob
            pattern of any of these (images that it matches are the frames of one video for each folder), or
            ``camera:0``.
        flow: Folder laid out like source, with a flow map for each frame; the last frame's may be missing.
        names: Only these videos; empty takes all.

    Raises:
        FileNotFoundError: Nothing is there, or no frames.
        UserError: Frames lack flow maps, two videos share a name, or a wanted name is not there; lists all. A
            camera has no stored flow.
    """
    if flow is not None and not flow.is_dir():
        raise FileNotFoundError(f"flow folder not found: {flow}")
    found: dict[str, str | Path | tuple[Path, ...]] = {}
    for name, place in _find(str(source)):
        if name in found:
            raise UserError(
                f"two videos are called {name}: {_show(found[name])} and {_show(place)}; rename one, or segment "
                f"them into folders of their own"
            )
        found[name] = place
    if not found:
        raise FileNotFoundError(f"no frames or videos in {source}; expected images, or folders of images")
    if unknown := [name for name in names if name not in found]:
        raise UserError(f"no such sequence in {source}: {', '.join(unknown)}")
    videos = [InputVideo(name, found[name]) for name in names or found]
    if flow is not None and any(video.live for video in videos):
        raise UserError(f"{source} has no stored flow; leave --flow out to compute it")
    return videos if flow is None else _with_flow(videos, flow)


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


def _find(source: str) -> Iterator[tuple[str, str | Path | tuple[Path, ...]]]:
    path = Path(source)
    if source.startswith(CAMERA):
        yield source.replace(":", ""), source
    elif path.exists():
        yield from _find_at(path)
    elif glob.escape(source) != source:
        matches = match_files(source)
        if not matches:
            raise FileNotFoundError(f"nothing matches {source}")
        images = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
        for folder in sorted({image.parent for image in images}):
            chosen = {image for image in images if image.parent == folder}
            yield (
                safe_name(folder.resolve().name),
                tuple(image for image in _frames(folder) if image in chosen),
            )
        for match in matches:
            if match.is_dir() or match.suffix.lower() in PACK_SUFFIXES:
                yield from _find_at(match)
    else:
        raise FileNotFoundError(
            f"input not found: {source}; neither a path, nor a glob pattern, camera:0, or a data set "
            f"({', '.join(DATASETS)})"
        )


def _find_at(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield safe_name(path.stem), path
    elif _frames(path):
        yield safe_name(path.resolve().name), path
    else:
        for entry in sorted(path.iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_file() and entry.suffix.lower() in PACK_SUFFIXES:
                yield safe_name(entry.stem), entry
            elif entry.is_dir() and _frames(entry):
                yield safe_name(entry.name), entry


def _folder_of(video: InputVideo) -> Path | None:
    """The folder whose images are a video's frames."""
    if isinstance(video.source, tuple):
        return video.source[0].parent
    return video.source if isinstance(video.source, Path) and video.source.is_dir() else None


def _frames(path: Path) -> list[Path]:
    return list_files(path, IMAGE_SUFFIXES)


def _show(place: str | Path | tuple[Path, ...]) -> str:
    return str(place[0].parent if isinstance(place, tuple) else place)


def _with_flow(videos: Sequence[InputVideo], flow: Path) -> list[InputVideo]:
    matched, problems = [], []
    for video in videos:
        folder = find_sequence(flow, video.name) or (flow if len(videos) == 1 else None)
        try:
            frames = video.frames
        except BadFileError:  # it fails when its turn comes, and the others do not
            matched.append(video)
            continue
        flows = _match_flow(frames, [] if folder is None else list_files(folder, FLOW_SUFFIXES))
        if flows is None:
            problems.append(video.name)
        matched.append(InputVideo(video.name, video.source, flows))
    if problems:
        raise UserError(
            f"{flow} lacks flow maps (one for each frame but the last, same stems) for: {', '.join(problems)}; "
            f"leave --flow out to compute flow"
        )
    return matched


def _match_flow(frames: Sequence[Path], flows: Sequence[Path]) -> tuple[Path, ...] | None:
    """Flow files in the order of the frames; None where one is missing that has to be there."""
    stems = [frame.stem for frame in frames]
    maps = complete_maps(stems, {path.stem: path for path in flows})
    return tuple(maps[stem] for stem in stems) if maps.keys() >= set(stems) else None
