"""Long-Videos (AFB-URR): three videos of thousands of frames with sparse truth."""

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
    """Every video below ``JPEGImages`` (or ``JPEGImages/480p``) of the original set.

    Raises:
        SourceError: No such folder, or truth without an image.
    """
    bases = [path for path in find_folders(folders, "JPEGImages") if "x3" not in path.parent.name]
    if not bases:
        raise SourceError("no folder JPEGImages")
    images, masks = bases[0], bases[0].parent / "Annotations"
    if (images / "480p").is_dir():
        images, masks = images / "480p", masks / "480p"
    videos = []
    for sequence in subfolders(images):
        truth = files_by_stem(masks / sequence.name, MASK_SUFFIXES)
        if not truth:
            raise SourceError(f"{masks / sequence.name}: no truth")
        frames = files_by_stem(sequence, IMAGE_SUFFIXES)
        videos.append(pair_by_stem("val", sequence.name, frames, truth, dense=False))
    return videos


RECIPE = Recipe(
    name="longvideos",
    layout="long_video/JPEGImages/<video>/<frame>.jpg, long_video/Annotations/<video>/<frame>.png (sparse)",
    source="https://github.com/xmlyqing00/AFB-URR, dataset/LongVideo_DS.py",
    truth="object ids as palette indices",
    find=find,
)
