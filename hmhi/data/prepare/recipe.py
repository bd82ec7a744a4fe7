"""What a converter is: a function that finds the videos of a published layout, and the rules it follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hmhi.errors import UserError
from hmhi.media.masks import read_labels, read_mask_values
from hmhi.media.names import check_name
from hmhi.media.order import in_order


class SourceError(UserError):
    """What was given is not the published layout of the data set."""


@dataclass(frozen=True)
class PublishedFrame:
    """One frame as published."""

    stem: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class PublishedVideo:
    """One video as published, under the name and split that it will have."""

    split: str
    name: str
    frames: tuple[PublishedFrame, ...]
    problems: tuple[str, ...] = ()
    """Why it cannot be taken as it is."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.frames:
            raise SourceError(f"{self.split}/{self.name}: no frames")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one data set becomes a folder of ours."""

    name: str
    """Data set in `hmhi.data.catalog`."""
    layout: str
    """The published layout, for help and errors."""
    source: str
    """Where that layout is documented."""
    truth: str
    """Which pixels become foreground."""
    find: Callable[[Sequence[Path]], list[PublishedVideo]]
    """Folders of unpacked archives -> videos."""
    listed: Callable[[Sequence[Path]], Mapping[str, Sequence[str]]] | None = None
    """Folders of unpacked archives -> split -> names of all its videos, where the archive has lists of its own."""
    labels: Callable[[Path], np.ndarray] = read_labels
    """Reads one published mask to object ids (H, W), or to {0, 1} where its truth does not tell objects apart."""
    resize_masks: bool = False
    """Whether masks of another size than their image are scaled to it (nearest neighbour)."""
    records: Callable[[Sequence[Path]], Mapping[str, Path]] | None = None
    """Folders of unpacked archives -> name in the data set's folder -> JSON file to copy there."""
    skip_folders: frozenset[str] = field(default_factory=frozenset)
    """Names of folders inside archives that are not needed."""


def above_half(path: Path) -> np.ndarray:
    """Foreground of grey-level and JPEG truth: values above 127."""
    values = read_mask_values(path)
    if values.dtype == bool:
        return values
    return (values if values.ndim == 2 else values.max(axis=2)) > 127


def find_folders(folders: Iterable[Path], name: str) -> list[Path]:
    """Every folder of a name (case ignored) at or below the given ones, shallow ones first."""
    found = []
    for folder in folders:
        candidates = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        found += [path for path in candidates if path.name.casefold() == name.casefold()]
    return sorted(set(found), key=lambda path: (len(path.parts), path))


def subfolders(folder: Path) -> list[Path]:
    """Folders directly below one, sorted, hidden ones left out."""
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    )


def files_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Stem -> file of those with one of the suffixes, in the order of frames, hidden ones left out.

    Raises:
        SourceError: Two files share a stem.
    """
    if not folder.is_dir():
        return {}
    known = tuple(suffixes)
    files: dict[str, Path] = {}
    for path in in_order(folder.iterdir()):
        if path.suffix.lower() in known and not path.name.startswith("."):
            if path.stem in files:
                raise SourceError(f"{path}: {files[path.stem].name} has the same stem")
            files[path.stem] = path
    return files


def pair_by_stem(
    split: str, name: str, images: dict[str, Path], masks: dict[str, Path], *, dense: bool
) -> PublishedVideo:
    """A video whose masks share the stems of their images.

    It has a problem where a mask has no image, or in a dense set an image has no mask.
    """
    problems = []
    if without := in_order(masks.keys() - images.keys()):
        problems.append(f"mask {without[0]} has no image ({len(without)} such masks)")
    if dense and (bare := in_order(images.keys() - masks.keys())):
        problems.append(f"image {bare[0]} has no mask ({len(bare)} such images)")
    frames = (PublishedFrame(stem, images[stem], masks.get(stem)) for stem in in_order(images))
    return PublishedVideo(split, name, tuple(frames), tuple(problems))
