"""FBMS-59: its two forms of sparse multi-object truth, merged to one foreground.

Sequences with ``<frame>_gt.ppm`` paint each object in a colour of its own on white; beside it lie a grey
``_gt.pgm`` that loses objects and a ``PROB`` picture, which are left out. The older sequences (cars,
marple, people1, people2, tennis) have only ``<frame>.pgm``, whose grey values name regions on black.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmhi.data.prepare.recipe import (
    PublishedFrame,
    PublishedVideo,
    Recipe,
    SourceError,
    files_by_stem,
    find_folders,
)
from hmhi.data.splits import FBMS_TEST, FBMS_TRAIN
from hmhi.media.masks import read_mask_values

_WHITE = 250
"""Smallest channel value from which a colour counts as white."""

_DARK = 25
"""Largest grey value that counts as background, except in the videos below."""

_DARK_IN = {"marple2": 102, "marple7": 12}
"""A grey region of marple2 is background; the objects of marple7 are nearly black."""


def find(folders: Sequence[Path]) -> list[PublishedVideo]:
    """The published videos of ``Trainingset`` (29) and ``Testset`` (30) that are there.

    Raises:
        SourceError: Neither folder is there, it holds other videos only, or truth without an image.
    """
    videos = []
    for split, folder_name, published in (
        ("train", "Trainingset", FBMS_TRAIN),
        ("val", "Testset", FBMS_TEST),
    ):
        parents = find_folders(folders, folder_name)
        if not parents:
            continue
        found = [name for name in published if (parents[0] / name).is_dir()]
        if not found:
            raise SourceError(
                f"{parents[0]}: none of its {len(published)} videos; copies of FBMS that hold other videos "
                f"(DAVIS, for one) are in circulation"
            )
        videos += [_find_video(split, parents[0] / name) for name in found]
    if not videos:
        raise SourceError("no folder Trainingset or Testset")
    return videos


def _find_video(split: str, folder: Path) -> PublishedVideo:
    images = files_by_stem(folder, (".jpg", ".jpeg", ".png")) or files_by_stem(folder, (".ppm",))
    numbers = {_number(stem, folder.name): stem for stem in images}
    if len(numbers) != len(images):
        raise SourceError(f"{folder}: two images have the same number")
    masks: dict[str, Path] = {}
    for path in _truth_files(folder / "GroundTruth"):
        key = path.stem.removesuffix("_gt")
        stem = key if key in images else numbers.get(_number(key, folder.name))
        if stem is None:
            raise SourceError(f"{path}: no image of this number in {folder}")
        if stem in masks:
            raise SourceError(f"{path}: {masks[stem].name} is truth of the same frame")
        masks[stem] = path
    if not masks:
        raise SourceError(f"{folder / 'GroundTruth'}: no .ppm or .pgm truth")
    # Numbers are not padded everywhere: order by number and pad, so that order by name is the same.
    width = max(len(str(number)) for number in numbers)
    uneven = len({len(stem) for stem in images}) > 1
    frames = []
    for number in sorted(numbers):
        stem = numbers[number]
        name = f"{folder.name}_{number:0{width}d}" if uneven else stem
        frames.append(PublishedFrame(name, images[stem], masks.get(stem)))
    return PublishedVideo(split, folder.name, tuple(frames))


def _truth_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.glob("*")) if "PROB" not in path.name]
    colour = [path for path in files if path.suffix.lower() == ".ppm"]
    return colour or [path for path in files if path.suffix.lower() == ".pgm"]


def _number(stem: str, video: str) -> int:
    digits = re.findall(r"\d+", stem.removeprefix(video))
    if not digits:
        raise SourceError(f"{video}: the file name {stem!r} holds no frame number")
    return int(digits[-1])


def foreground(path: Path) -> np.ndarray:
    """Every object: what is not white in colour truth, what is not dark in grey truth."""
    values = read_mask_values(path)
    if path.suffix.lower() == ".ppm":
        return np.asarray(values.reshape(*values.shape[:2], -1).min(axis=2) < _WHITE)
    video = path.parent.parent.name
    return np.asarray(values > _DARK_IN.get(video, _DARK))


RECIPE = Recipe(
    name="fbms",
    layout="Trainingset/<video>/<video>_01.jpg and Testset/<video>/..., each with GroundTruth/*.ppm or *.pgm",
    source="https://lmb.informatik.uni-freiburg.de/resources/datasets/moseg.en.html; TokenCut_video "
    "data/FBMS/FBMS_clean.py; merging of objects: tfzhou/MATNet issue 30",
    truth="all objects merged: not white in .ppm; above 25 in .pgm (above 102 in marple2, 12 in marple7); "
    "_gt.pgm beside .ppm and PROB files ignored",
    find=find,
    labels=foreground,
)
