"""DAVIS-2017: trainval and test-dev at 480p, object ids kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmhi.data.prepare.recipe import (
    PublishedVideo,
    Recipe,
    SourceError,
    files_by_stem,
    find_folders,
    pair_by_stem,
)
from hmhi.media.files import read_text
from hmhi.media.names import check_name
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES

_SPLITS = ("train", "val", "test-dev")


def listed(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Split -> names in ``ImageSets/2017/<split>.txt`` of any of the archives."""
    names: dict[str, list[str]] = {}
    for sets in find_folders(folders, "ImageSets"):
        for split in _SPLITS:
            path = sets / "2017" / f"{split}.txt"
            if path.is_file():
                names[split] = [check_name(name) for name in read_text(path).split()]
    return names


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """The listed videos that are there; of test-dev only first frames are annotated.

    Raises:
        SourceError: No ``JPEGImages/480p``, or no list below ``ImageSets/2017``.
    """
    bases = [path.parent for path in find_folders(folders, "JPEGImages") if (path / "480p").is_dir()]
    if not bases:
        raise SourceError("no folder JPEGImages/480p")
    names = listed(folders)
    if not names:
        raise SourceError("no list ImageSets/2017/train.txt, val.txt or test-dev.txt")
    return [
        _video(split, name, base)
        for split, videos in names.items()
        for name in videos
        for base in bases
        if (base / "JPEGImages" / "480p" / name).is_dir()
    ]


def _video(split: str, name: str, base: Path) -> PublishedVideo:
    frames = files_by_stem(base / "JPEGImages" / "480p" / name, IMAGE_SUFFIXES)
    truth = files_by_stem(base / "Annotations" / "480p" / name, MASK_SUFFIXES)
    return pair_by_stem(split, name, frames, truth, dense=split != "test-dev")


RECIPE = Recipe(
    name="davis17",
    layout="DAVIS/{JPEGImages,Annotations}/480p/<video>/00000.{jpg,png} with DAVIS/ImageSets/2017/*.txt; the "
    "trainval archive, the test-dev archive, or both",
    source="https://davischallenge.org/davis2017/code.html",
    truth="object ids as palette indices; test-dev has those of first frames only",
    find=find,
    listed=listed,
)
