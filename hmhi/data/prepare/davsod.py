"""DAVSOD: its five archives, object-level truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmhi.data.prepare.recipe import (
    PublishedVideo,
    Recipe,
    SourceError,
    above_half,
    files_by_stem,
    find_folders,
    pair_by_stem,
)
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES

_SPLITS = {
    "train": "train",
    "valid": "validation",
    "easy": "val",
    "normal": "val_normal",
    "difficult": "val_difficult",
}


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """Sequences of whichever of the five parts are given.

    Raises:
        SourceError: No ``Imgs`` folder, or one whose part cannot be told, or truth without an image.
    """
    videos = []
    for images in find_folders(folders, "Imgs"):
        sequence = images.parent
        videos.append(
            pair_by_stem(
                _split_of(sequence, folders),
                sequence.name,
                files_by_stem(images, IMAGE_SUFFIXES),
                files_by_stem(sequence / "GT_object_level", MASK_SUFFIXES),
                dense=False,
            )
        )
    if not videos:
        raise SourceError("no folder called Imgs")
    return videos


def _split_of(sequence: Path, folders: Sequence[Path]) -> str:
    base = next(folder for folder in folders if folder == sequence or folder in sequence.parents)
    for part in (*reversed(sequence.relative_to(base).parts[:-1]), base.name):
        for word, split in _SPLITS.items():
            if word in part.casefold():
                return split
    raise SourceError(
        f"{sequence}: no folder above it is called DAVSOD-TrainingSet, DAVSOD-ValidationSet, Easy-35, Normal-25 "
        f"or Difficult-20"
    )


RECIPE = Recipe(
    name="davsod",
    layout="{DAVSOD-TrainingSet, DAVSOD-ValidationSet, Easy-35, Normal-25, Difficult-20}/select_<id>/"
    "{Imgs, GT_object_level}/<frame>.png; any of the five archives",
    source="https://github.com/DengPingFan/DAVSOD (packages of 2021-02-18)",
    truth="GT_object_level above 127; Easy-35 becomes val, Normal-25 val_normal, Difficult-20 val_difficult",
    find=find,
    labels=above_half,
    skip_folders=frozenset(
        {"GT_instance_level", "Fixation_maps", "Fixation_maps_smoothed", "Fixation_records", "Imgs_fused"}
    ),
)
