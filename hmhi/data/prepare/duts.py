"""DUTS: single images with saliency truth, for image pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmhi.data.prepare.recipe import (
    PublishedFrame,
    PublishedVideo,
    Recipe,
    SourceError,
    above_half,
    files_by_stem,
    find_folders,
)
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """Images of DUTS-TR (train) and, where given, DUTS-TE (val).

    Raises:
        SourceError: No ``DUTS-TR-Image`` or ``DUTS-TE-Image``, or an image without its mask, or the reverse.
    """
    videos = []
    for split, part in (("train", "DUTS-TR"), ("val", "DUTS-TE")):
        for images_at in find_folders(folders, f"{part}-Image")[:1]:
            images = files_by_stem(images_at, IMAGE_SUFFIXES)
            masks = files_by_stem(images_at.parent / f"{part}-Mask", MASK_SUFFIXES)
            odd = sorted(images.keys() ^ masks.keys())
            if odd:
                raise SourceError(
                    f"{images_at.parent}: {odd[0]} has no image or no mask ({len(odd)} such files)"
                )
            videos += [PublishedVideo(split, s, (PublishedFrame(s, images[s], masks[s]),)) for s in images]
    if not videos:
        raise SourceError("no folder DUTS-TR-Image or DUTS-TE-Image")
    return videos


RECIPE = Recipe(
    name="duts",
    layout="DUTS-TR/DUTS-TR-Image/*.jpg with DUTS-TR/DUTS-TR-Mask/*.png; the same for DUTS-TE",
    source="http://saliencydetection.net/duts/",
    truth="values above 127",
    find=find,
    labels=above_half,
)
