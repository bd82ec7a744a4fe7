"""YouTube-VOS 2018 or 2019, training part: every fifth frame, object ids kept."""

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


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """Videos of ``train``; where ``train_all_frames`` is given too, with the frames between its masks.

    Raises:
        SourceError: No ``train`` folder with images and annotations, or a mask without its image.
    """
    trains = [path for path in find_folders(folders, "train") if (path / "Annotations").is_dir()]
    if not trains:
        raise SourceError("no folder train/Annotations (the valid and test parts hold no usable truth)")
    every = [path / "JPEGImages" for path in find_folders(folders, "train_all_frames")]
    images = next((path for path in every if path.is_dir()), trains[0] / "JPEGImages")
    return [
        pair_by_stem(
            "train",
            masks.name,
            files_by_stem(images / masks.name, IMAGE_SUFFIXES),
            files_by_stem(masks, MASK_SUFFIXES),
            dense=False,
        )
        for masks in subfolders(trains[0] / "Annotations")
    ]


RECIPE = Recipe(
    name="ytvos",
    layout="train/JPEGImages/<id>/00000.jpg, train/Annotations/<id>/00000.png (every fifth frame), "
    "optional train_all_frames/JPEGImages/<id>",
    source="https://youtube-vos.org/dataset/vos/; pytracking ltr/dataset/youtubevos.py",
    truth="object ids as palette indices",
    find=find,
)
