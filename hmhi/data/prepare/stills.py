"""Single images with masks, from which clips are made by bending: saliency sets, FSS-1000 and PASCAL VOC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from hmhi.data.prepare.recipe import (
    PublishedFrame,
    PublishedVideo,
    Recipe,
    SourceError,
    above_half,
    files_by_stem,
)
from hmhi.media.files import walk_folders
from hmhi.media.masks import read_labels
from hmhi.media.names import safe_name

_IMAGES = (".jpg", ".jpeg")
_MASK_FOLDERS = frozenset(
    {"ground_truth_mask", "ground-truth", "gt", "gts", "mask", "masks", "annotations", "segmentationobject"}
)
_IMAGE_ENDING, _MASK_ENDING = "_im", "_gt"


def find(name: str, classes: bool, folders: Sequence[Path]) -> list[PublishedVideo]:
    """Every JPEG image that has a PNG mask, in its own folder or in one for masks beside that.

    Args:
        name: Of the set.
        classes: Whether images of different folders share names, so that those of the folders go before them.
        folders: Where to look, at any depth.

    Raises:
        SourceError: There is none.
    """
    videos = [video for folder in folders for video in _find_below(folder, classes)]
    if not videos:
        raise SourceError(f"no JPEG image of {name} with a PNG mask of its name")
    return videos


def _find_below(root: Path, classes: bool) -> Iterator[PublishedVideo]:
    for folder, _ in walk_folders(root):
        images = files_by_stem(folder, _IMAGES)
        if not images:
            continue
        masks = files_by_stem(folder, (".png",))
        for beside in folder.parent.iterdir() if folder != root else ():
            if beside.name.casefold() in _MASK_FOLDERS:
                masks |= files_by_stem(beside, (".png",))
        for stem, image in images.items():
            plain = stem.removesuffix(_IMAGE_ENDING)
            mask = masks.get(stem) or masks.get(f"{plain}{_MASK_ENDING}")
            if mask is not None:
                name = safe_name(f"{folder.name}_{plain}" if classes else plain)
                yield PublishedVideo("train", name, (PublishedFrame(name, image, mask),))


def _recipe(name: str, layout: str, source: str, truth: str = "values above 127") -> Recipe:
    reader = read_labels if name == "voc" else above_half
    return Recipe(
        name=name,
        layout=layout,
        source=source,
        truth=truth,
        find=partial(find, name, name == "fss1000"),
        labels=reader,
    )


RECIPES = (
    _recipe(
        "ecssd", "images/*.jpg with ground_truth_mask/*.png",
        "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    ),
    _recipe("msra10k", "MSRA10K_Imgs_GT/Imgs/*.jpg and *.png", "https://mmcheng.net/msra10k/"),
    _recipe(
        "fss1000", "fewshot_data/<class>/1.jpg and 1.png", "https://github.com/HKUSTCV/FSS-1000",
    ),
    _recipe(
        "hrsod", "<folder>/*.jpg with masks/*.png or *.png", "https://github.com/yi94code/HRSOD",
    ),
    _recipe("big", "*_im.jpg and *_gt.png", "https://github.com/hkchengrex/CascadePSP"),
    _recipe(
        "voc", "VOC2012/JPEGImages/*.jpg with VOC2012/SegmentationObject/*.png",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/", "object ids as palette indices; 255 is void",
    ),
)  # fmt: skip
