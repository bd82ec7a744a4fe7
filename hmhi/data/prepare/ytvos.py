"""YouTube-VOS 2018 and 2019: every fifth frame, object ids kept; the validation part has first masks only."""

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
    subfolders,
)
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES


def find_train(folders: Sequence[Path]) -> list[PublishedVideo]:
    """Videos of ``train``; where ``train_all_frames`` is given too, with the frames between its masks.

    Raises:
        SourceError: No ``train`` folder with images and annotations.
    """
    videos = _find("train", folders)
    if not videos:
        raise SourceError("no folder train/Annotations (the valid and test parts hold no usable truth)")
    return videos


def find_both(folders: Sequence[Path]) -> list[PublishedVideo]:
    """As `find_train`, and the videos of ``valid`` with the masks of their objects' first frames.

    Raises:
        SourceError: Neither part is there.
    """
    videos = [*_find("train", folders), *_find("valid", folders)]
    if not videos:
        raise SourceError("no folder train/Annotations or valid/Annotations")
    return videos


def find_records(folders: Sequence[Path]) -> dict[str, Path]:
    """The ``meta.json`` of either part, as ``meta_train.json`` and ``meta_valid.json``; scoring needs the latter."""
    found = {
        f"meta_{part}.json": path / "meta.json"
        for part in ("train", "valid")
        for path in find_folders(folders, part)
    }
    return {name: path for name, path in found.items() if path.is_file()}


def _find(part: str, folders: Sequence[Path]) -> list[PublishedVideo]:
    bases = [path for path in find_folders(folders, part) if (path / "Annotations").is_dir()]
    if not bases:
        return []
    every = [path / "JPEGImages" for path in find_folders(folders, f"{part}_all_frames")]
    images = next((path for path in every if path.is_dir()), bases[0] / "JPEGImages")
    return [
        pair_by_stem(
            part,
            masks.name,
            files_by_stem(images / masks.name, IMAGE_SUFFIXES),
            files_by_stem(masks, MASK_SUFFIXES),
            dense=False,
        )
        for masks in subfolders(bases[0] / "Annotations")
    ]


_SOURCE = "https://youtube-vos.org/dataset/vos/; pytracking ltr/dataset/youtubevos.py"
_TRUTH = "object ids as palette indices"

RECIPE = Recipe(
    name="ytvos",
    layout="train/JPEGImages/<id>/00000.jpg, train/Annotations/<id>/00000.png (every fifth frame), "
    "optional train_all_frames/JPEGImages/<id>",
    source=_SOURCE,
    truth=_TRUTH,
    find=find_train,
)

OBJECT_RECIPES = tuple(
    Recipe(
        name=name,
        layout="{train,valid}/{JPEGImages,Annotations}/<id>/00000.{jpg,png} (every fifth frame), optional "
        "{train,valid}_all_frames/JPEGImages/<id>; either part is enough",
        source=_SOURCE,
        truth=f"{_TRUTH}; valid has those of the frames at which objects appear",
        find=find_both,
        records=find_records,
    )
    for name in ("ytvos18", "ytvos19")
)
