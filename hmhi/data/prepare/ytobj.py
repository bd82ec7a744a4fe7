"""YouTube-Objects v1 frames with the masks of Jain and Grauman (one for about every tenth frame)."""

from __future__ import annotations

import re
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

CLASSES = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """One video for each annotated shot, called ``<class><video>_<shot>``.

    Raises:
        SourceError: No labels, labels of an unknown class, or a label without its frame.
    """
    videos = []
    categories = {name: [path.parent for path in find_folders(folders, name)] for name in CLASSES}
    for labels in find_folders(folders, "labels"):
        # <class>/data/<video>/shots/<shot>/labels
        shot, video, category = labels.parts[-2], labels.parts[-4], labels.parts[-6]
        if labels.parts[-3] != "shots" or category not in CLASSES:
            raise SourceError(f"{labels}: not of the form <class>/data/<video>/shots/<shot>/labels")
        images = _find_images(categories[category], Path(category, "data", video, "shots", shot))
        masks = {_number(stem): path for stem, path in files_by_stem(labels, (".jpg", ".png")).items()}
        if not masks:
            continue
        without = sorted(masks.keys() - images.keys())
        if without:
            raise SourceError(f"{labels}: label {without[0]} has no frame ({len(without)} such labels)")
        frames = (PublishedFrame(f"{n:05d}", images[n], masks.get(n)) for n in sorted(images))
        videos.append(PublishedVideo("val", f"{category}{video}_{shot}", tuple(frames)))
    if not videos:
        raise SourceError("no folder called labels")
    return sorted(videos, key=lambda video: video.name)


def _find_images(bases: Sequence[Path], where: Path) -> dict[int, Path]:
    """Frames lie in the shot's folder, or in ``images`` within, of the masks' archive or of the frames'."""
    for base in bases:
        for folder in (base / where, base / where / "images"):
            files = files_by_stem(folder, (".jpg", ".png"))
            if files:
                return {_number(stem): path for stem, path in files.items()}
    raise SourceError(f"{where}: no frames; give the archive of this class's frames as a source too")


def _number(stem: str) -> int:
    match = re.search(r"(\d+)$", stem)
    if match is None:
        raise SourceError(f"the file name {stem!r} does not end in a frame number")
    return int(match.group(1))


RECIPE = Recipe(
    name="ytobj",
    layout="<class>/data/<video>/shots/<shot>/labels/00001.jpg (masks), .../<shot>/frame0001.jpg or "
    ".../<shot>/images/frame0001.jpg (frames); several sources may be given",
    source="https://data.vision.ee.ethz.ch/cvl/youtube-objects/ (frames, v1); "
    "http://vision.cs.utexas.edu/projects/videoseg/ (masks); layout as read by OnAVOS (crf/crf_youtube.py)",
    truth="JPEG values above 127; masks are half the frames' size in part and are scaled by nearest neighbour",
    find=find,
    labels=above_half,
    resize_masks=True,
)
