"""DAVIS-2016, from its own archive or from DAVIS-2017 trainval, whose object ids are kept."""

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
from hmhi.data.splits import DAVIS16_TRAIN, DAVIS16_VAL
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """The published videos of both splits that are there, at 480p.

    Raises:
        SourceError: No ``JPEGImages/480p``.
    """
    bases = [path.parent for path in find_folders(folders, "JPEGImages") if (path / "480p").is_dir()]
    if not bases:
        raise SourceError("no folder JPEGImages/480p")
    images, masks = bases[0] / "JPEGImages" / "480p", bases[0] / "Annotations" / "480p"
    videos = []
    for split, names in (("train", DAVIS16_TRAIN), ("val", DAVIS16_VAL)):
        for name in (name for name in names if (images / name).is_dir()):
            frames = files_by_stem(images / name, IMAGE_SUFFIXES)
            truth = files_by_stem(masks / name, MASK_SUFFIXES)
            videos.append(pair_by_stem(split, name, frames, truth, dense=True))
    return videos


RECIPE = Recipe(
    name="davis16",
    layout="DAVIS/JPEGImages/480p/<video>/00000.jpg, DAVIS/Annotations/480p/<video>/00000.png",
    source="https://davischallenge.org/davis2016/code.html and davis2017/code.html",
    truth="object ids as palette indices; grey 255 of the 2016 archive becomes id 1",
    find=find,
)
