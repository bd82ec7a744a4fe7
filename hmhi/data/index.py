"""Scan a data root into videos and frames; whatever is missing or does not match is listed at once.

Four layouts of a data set's folder are understood, told apart by the folders that exist:

* ours, which the release's README describes: ``{Images,Annotations,Flows}/{train,val}/<video>/<stem>.*``
* the one its code reads: ``{frame,mask,flow}/{train,val}/<video>/<stem>.*``
* DAVIS as published: ``JPEGImages/480p/<video>``, ``Annotations/480p/<video>``, optional
  ``Flows/<video>`` or ``Flow/<video>``, and list files ``ImageSets/{480p,2016,2017}/{train,val}.txt``
* YouTube-VOS as published: ``{train,valid}/{JPEGImages,Annotations}/<video>``, optional ``Flows`` beside them

Image, flow map and mask of a frame share their stem. A flow map of frame t leads from t to t + 1, so the
last frame has none in many data sets; it then takes the map of the frame before it. That is the only gap
that is filled; any other one is an error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmhi.data.catalog import DatasetSpec, get_spec
from hmhi.errors import BadFileError, UserError
from hmhi.flow.directions import complete_maps
from hmhi.media.files import read_text
from hmhi.media.names import check_name
from hmhi.media.order import in_order
from hmhi.media.packs import (
    FLOW_SUFFIXES,
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    find_sequence,
    list_files,
    list_sequences,
)

logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
"""Problems that an error message spells out before it only counts them."""


class DatasetNotFoundError(FileNotFoundError):
    """A data set's folder, or the folder of one of its splits, does not exist."""


class DatasetError(UserError):
    """Files of a data set are missing or do not match; the message lists them."""

    def __init__(self, title: str, problems: list[str]) -> None:
        self.problems = problems
        shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        rest = len(problems) - SHOWN_PROBLEMS
        super().__init__(f"{title}\n{shown}" + (f"\n  ... and {rest} more" if rest > 0 else ""))


@dataclass(frozen=True)
class Frame:
    """One frame; paths may lead into a pack (see `hmhi.media.pictures`)."""

    stem: str
    image: Path
    flow: Path | None
    mask: Path | None


@dataclass(frozen=True)
class Video:
    """One sequence, its frames in order of their stems."""

    dataset: str
    name: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class SplitLayout:
    """Where one split of a data set lies."""

    images: Path
    masks: Path
    flows: Path
    videos: tuple[str, ...]
    listed: frozenset[tuple[str, str]] = frozenset()
    """(video, stem) pairs that a list file names one by one; empty where it names only videos."""


def scan(root: Path, dataset: str, split: str, *, need_flow: bool, need_mask: bool) -> list[Video]:
    """List the videos of a split, sorted by name (DAVIS as published: in the order of its list file).

    Only names are read, no file is decoded.

    Args:
        root: Folder that holds one folder for each data set.
        dataset: Name in `hmhi.data.catalog`.
        split: ``train`` or ``val``.
        need_flow: Whether a frame without a flow map is an error (still images excepted).
        need_mask: Whether masks are an error to miss: every one in data sets that annotate each frame, at
            least one for each video in the others.

    Raises:
        DatasetNotFoundError: The data set or the split is not there.
        DatasetError: Missing or mismatched files, all of the split in one message.
    """
    spec = get_spec(dataset)
    layout = find_layout(Path(root), spec, split)
    videos, problems = scan_layout(layout, spec, need_flow=need_flow, need_mask=need_mask)
    if problems:
        hint = "; python tools/check_data.py reports on the whole tree, docs/DATA.md describes it"
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise DatasetError(f"{dataset} {split} in {layout.images.parent}: {count}{hint}", problems)
    return videos


def scan_layout(
    layout: SplitLayout, spec: DatasetSpec, *, need_flow: bool, need_mask: bool
) -> tuple[list[Video], list[str]]:
    """As `scan`, for a layout that was found; returns the videos and every problem instead of raising."""
    if spec.still:
        return _scan_images(layout, spec, need_mask)
    videos, problems = [], []
    for name in layout.videos:
        try:
            frames, found = _match_frames(layout, name, spec, need_flow, need_mask)
        except BadFileError as error:
            frames, found = (), [str(error)]
        problems += [f"{name}: {problem}" for problem in found]
        videos.append(Video(spec.name, name, frames))
    if not videos:
        problems = [f"no video folders in {layout.images}"]
    return videos, problems


def find_layout(root: Path, spec: DatasetSpec, split: str) -> SplitLayout:
    """Find which of the layouts a data set has, and its videos.

    Raises:
        DatasetNotFoundError: The data set or the split is not there.
        DatasetError: Two folders claim to be the data set, or a video's name is not a plain one.
    """
    base = find_folder(root, spec)
    if split not in spec.splits:
        raise DatasetNotFoundError(f"{spec.name} has no {split!r} split, only {', '.join(spec.splits)}")
    part = spec.splits[split]
    for kinds in (
        (f"Images/{part}", f"Annotations/{part}", f"Flows/{part}"),
        (f"frame/{part}", f"mask/{part}", f"flow/{part}"),
        (f"{part}/JPEGImages", f"{part}/Annotations", f"{part}/Flows"),
    ):
        images, masks, flows = (base / kind for kind in kinds)
        if images.is_dir():
            names = tuple(list_sequences(images))
            try:
                for name in names:
                    check_name(name)
            except UserError as error:
                raise DatasetError(f"{images}: rename a folder", [str(error)]) from None
            return SplitLayout(images, masks, flows, names)
    if (base / "JPEGImages").is_dir():
        return _davis_layout(base, spec.lists, part)
    raise DatasetNotFoundError(
        f"{spec.name} has no {split!r} split: expected the folder {base / 'Images' / part}; "
        f"see docs/DATA.md for the layouts that are understood"
    )


def find_folder(root: Path, spec: DatasetSpec) -> Path:
    """The folder of a data set below the root: its usual name, or else any of its other names.

    Raises:
        DatasetNotFoundError: It is not there.
        DatasetError: Two folders with other names claim to be it.
    """
    if (root / spec.folder).is_dir():
        return root / spec.folder
    known = {name.casefold() for name in spec.folders}
    entries = sorted(root.iterdir()) if root.is_dir() else []
    found = [entry for entry in entries if entry.name.casefold() in known and entry.is_dir()]
    if not found:
        raise DatasetNotFoundError(
            f"data set {spec.name!r} not found: expected the folder {root / spec.folder} "
            f"(set data.root if it lies elsewhere); docs/DATA.md says how to get and prepare it"
        )
    if len(found) > 1:
        names = [str(entry) for entry in found]
        raise DatasetError(f"several folders are {spec.name!r}; rename or move all but one", names)
    return found[0]


def _davis_layout(base: Path, editions: Sequence[str], part: str) -> SplitLayout:
    lists = [base / "ImageSets" / edition / f"{part}.txt" for edition in editions]
    list_file = next((path for path in lists if path.is_file()), None)
    if list_file is None:
        raise DatasetNotFoundError(
            f"{base} has DAVIS's layout but no list of its {part} videos: expected {lists[0]}; "
            f"DAVIS-2017 is brought to DAVIS-16 by tools/prepare_data.py (docs/DATA.md)"
        )
    videos: dict[str, None] = {}  # a set that keeps its order
    listed = set()
    problems = []
    for number, line in enumerate(read_text(list_file).splitlines(), start=1):
        if not line.strip():
            continue
        # "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png", or only "bear"
        parts = line.split()[0].split("/")
        names_frame = len(parts) == 5 and parts[:3] == ["", "JPEGImages", "480p"]
        try:
            name = check_name(parts[3] if names_frame else line.strip())
        except UserError as error:
            problems.append(f"line {number}: {error}")
            continue
        videos[name] = None
        if names_frame:
            listed.add((name, Path(parts[4]).stem))
    if problems:
        raise DatasetError(f"{list_file}: {len(problems)} lines cannot be used", problems)
    flows = next((base / name for name in ("Flows", "Flow") if (base / name).is_dir()), base / "Flows")
    if (flows / "480p").is_dir():
        flows = flows / "480p"
    images, masks = base / "JPEGImages" / "480p", base / "Annotations" / "480p"
    return SplitLayout(images, masks, flows, tuple(videos), frozenset(listed))


def _match_frames(
    layout: SplitLayout, name: str, spec: DatasetSpec, need_flow: bool, need_mask: bool
) -> tuple[tuple[Frame, ...], list[str]]:
    """Pair the files of one video by stem; returns the frames and what is wrong with them."""
    problems: list[str] = []
    images = _by_stem(layout.images, name, IMAGE_SUFFIXES, problems)
    flows = _by_stem(layout.flows, name, FLOW_SUFFIXES, problems)
    masks = _by_stem(layout.masks, name, MASK_SUFFIXES, problems)
    if not images:
        return (), [*problems, f"no images in {layout.images / name}"]
    stems = in_order(images)
    absent = [stem for video, stem in layout.listed if video == name and stem not in images]
    problems += [f"listed image {stem} is not in {layout.images / name}" for stem in in_order(absent)]
    problems += [f"mask {stem} has no image" for stem in in_order(masks.keys() - images.keys())]
    problems += [f"flow map {stem} has no image" for stem in in_order(flows.keys() - images.keys())]
    flows = complete_maps(stems, flows)
    if need_flow:
        if not flows:
            problems.append(
                f"no flow maps in {layout.flows / name}; python tools/make_flow.py writes them, "
                f"or data.flow=dis computes them while loading"
            )
        else:
            problems += [f"image {stem} has no flow map" for stem in stems if stem not in flows]
    if need_mask:
        if not masks:
            problems.append(f"no masks in {layout.masks / name}")
        elif spec.dense:
            problems += [f"image {stem} has no mask" for stem in stems if stem not in masks]
    frames = tuple(Frame(stem, images[stem], flows.get(stem), masks.get(stem)) for stem in stems)
    return frames, problems


def _scan_images(layout: SplitLayout, spec: DatasetSpec, need_mask: bool) -> tuple[list[Video], list[str]]:
    problems: list[str] = []
    images = _unique_stems(layout.images, IMAGE_SUFFIXES, problems)
    masks = _unique_stems(layout.masks, MASK_SUFFIXES, problems) if layout.masks.is_dir() else {}
    problems += [f"mask {stem} has no image" for stem in in_order(masks.keys() - images.keys())]
    if need_mask:
        problems += [f"image {stem} has no mask" for stem in in_order(images.keys() - masks.keys())]
    if not images:
        problems = [f"no images in {layout.images}"]
    videos = [
        Video(spec.name, stem, (Frame(stem, images[stem], None, masks.get(stem)),))
        for stem in in_order(images)
    ]
    return videos, problems


def _by_stem(parent: Path, name: str, suffixes: Collection[str], problems: list[str]) -> dict[str, Path]:
    sequence = find_sequence(parent, name)
    return _unique_stems(sequence, suffixes, problems) if sequence is not None else {}


def _unique_stems(sequence: Path, suffixes: Collection[str], problems: list[str]) -> dict[str, Path]:
    files = list_files(sequence, suffixes)
    counts = Counter(path.stem for path in files)
    problems += [f"{sequence}: {n} files are called {stem}" for stem, n in counts.items() if n > 1]
    return {path.stem: path for path in files}
