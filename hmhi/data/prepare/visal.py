"""ViSal: 17 sequences with sparse truth."""

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
    subfolders,
)
from hmhi.media.packs import IMAGE_SUFFIXES

_TRUTH = (".png", ".bmp", ".jpg")


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """Sequences of the original layout, or of the one that the DAVSOD authors pass on.

    Raises:
        SourceError: Neither layout is there, or truth without an image.
    """
    nested = [path.parent for path in find_folders(folders, "Imgs")]
    if nested:
        return [_video(path.name, path / "Imgs", files_by_stem(_truth_of(path), _TRUTH)) for path in nested]
    truths = find_folders(folders, "GroundTruth")
    if not truths:
        raise SourceError("no folder called GroundTruth or Imgs")
    images = truths[0].parent / "ViSal"
    if not images.is_dir():
        raise SourceError(f"{truths[0].parent}: no folder ViSal with the images beside GroundTruth")
    flat = files_by_stem(truths[0], _TRUTH)
    videos = []
    for sequence in subfolders(images):
        frames = files_by_stem(sequence, IMAGE_SUFFIXES)
        masks = files_by_stem(truths[0] / sequence.name, _TRUTH) or {
            s: p for s, p in flat.items() if s in frames
        }
        videos.append(_video(sequence.name, sequence, masks))
    used = {frame.mask for video in videos for frame in video.frames}
    orphans = [path.name for path in flat.values() if path not in used]
    if orphans:
        raise SourceError(f"{truths[0]}: {orphans[0]} fits no image ({len(orphans)} such files)")
    return videos


def _truth_of(sequence: Path) -> Path:
    for name in ("ground-truth", "GT_object_level", "GT"):
        if (sequence / name).is_dir():
            return sequence / name
    raise SourceError(f"{sequence}: no folder ground-truth beside Imgs")


def _video(name: str, images: Path, masks: dict[str, Path]) -> PublishedVideo:
    if not masks:
        raise SourceError(f"{images}: no truth for any frame of {name}")
    return pair_by_stem("val", name, files_by_stem(images, IMAGE_SUFFIXES), masks, dense=False)


RECIPE = Recipe(
    name="visal",
    layout="ViSal/<video>/<frame>.* with GroundTruth/<frame>.* beside ViSal, or "
    "<video>/{Imgs, ground-truth}/<frame>.*",
    source="Wang, Shen and Shao, TIP 2015; sabarim/3DC-Seg datasets/visal/visal.py; "
    "https://github.com/DengPingFan/DAVSOD",
    truth="values above 127",
    find=find,
    labels=above_half,
)
