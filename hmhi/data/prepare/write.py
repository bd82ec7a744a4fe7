"""Run a recipe: published archives in, a folder of our layout and its manifest out."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from hmhi.data.catalog import get_spec
from hmhi.data.prepare.archive import is_archive, unpack
from hmhi.data.prepare.recipe import PublishedFrame, PublishedVideo, Recipe, SourceError
from hmhi.data.splits import PUBLISHED
from hmhi.errors import UserError
from hmhi.media.atomic import write_atomically, write_json
from hmhi.media.files import read_file, read_text
from hmhi.media.masks import write_labels
from hmhi.media.packs import IMAGE_SUFFIXES
from hmhi.media.pictures import read_rgb

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# Suffixes that occur in the published archives; the rest (PDFs, MATLAB files, ...) is not unpacked.
_WANTED = IMAGE_SUFFIXES | {".ppm", ".pgm", ".txt"}


def prepare(
    recipe: Recipe,
    sources: Sequence[Path],
    root: Path,
    mode: Literal["copy", "link"] = "copy",
    part: Literal["train", "val", "both"] | None = None,
) -> dict[str, Any]:
    """Convert a data set; a run that was interrupted continues where it stopped.

    Every video appears under its final name only when it is complete. Images are decoded once, to be sure that they
    are whole, and copied or linked as they are (``.ppm`` becomes ``.png``). Masks are always rewritten as palette
    PNG; they keep the ids of objects where the published truth has them.

    Args:
        recipe: The data set.
        sources: Folders or zip or tar archives, as published.
        root: Folder that will hold the data set's folder.
        mode: ``link`` makes symbolic links to images in source folders instead of copies.
        part: Splits to take, of which videos may be missing; None takes what the sources hold and refuses a split
            that lacks some of its published videos.

    Returns:
        The manifest, which is also written to ``<root>/<folder>/manifest.json``.

    Raises:
        FileNotFoundError: A source does not exist.
        SourceError: The sources have another layout than the published one, or lack videos.
        BadFileError: A file or archive is damaged.
    """
    _check_sources(sources, mode)
    base = root / get_spec(recipe.name).folder
    work = base / ".work"
    before = _read_manifest(base / MANIFEST)
    try:
        folders = _open_sources(recipe, sources, work)
        videos = _find_videos(recipe, sources, folders, part)
        write = _write_still if get_spec(recipe.name).still else _write_video
        for video in tqdm(videos, desc=recipe.name, unit="video", disable=None):
            write(recipe, video, base, mode, work)
        for name, record in (recipe.records(folders) if recipe.records else {}).items():
            with write_atomically(base / name) as stream:
                stream.write(read_file(record))
        manifest = _describe(recipe, sources, videos, base, before)
    except UserError:  # after an interruption or on a full disk what was unpacked is kept for the next run
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):
            base.rmdir()  # only if it is empty
        raise
    write_json(base / MANIFEST, manifest, indent=1)
    shutil.rmtree(work)
    return manifest


def _check_sources(sources: Sequence[Path], mode: str) -> None:
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder")
        if source.is_file() and not is_archive(source):
            raise SourceError(f"{source}: neither a folder nor a zip or tar archive")
        if is_archive(source) and mode == "link":
            raise SourceError(
                f"{source}: images inside an archive cannot be linked to; copy them, or unpack it"
            )


def _open_sources(recipe: Recipe, sources: Sequence[Path], work: Path) -> list[Path]:
    folders = []
    for source in sources:
        if is_archive(source):
            logger.info("unpacking %s", source)
            folders.append(unpack(source, work / "archives", lambda path: _is_wanted(recipe, path)))
        else:
            folders.append(source)
    work.mkdir(parents=True, exist_ok=True)
    return folders


def _is_wanted(recipe: Recipe, path: PurePosixPath) -> bool:
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    wanted = _WANTED | {".json"} if recipe.records else _WANTED
    return path.suffix.lower() in wanted and not hidden and recipe.skip_folders.isdisjoint(path.parts)


def _find_videos(
    recipe: Recipe, sources: Sequence[Path], folders: Sequence[Path], part: str | None
) -> list[PublishedVideo]:
    """The videos to write, complete and without problems; says what is left out."""
    try:
        found = recipe.find(folders)
    except SourceError as error:
        raise SourceError(f"{recipe.name}: {error}. Expected: {recipe.layout}") from None
    videos = [video for video in found if _belongs(video.split, part)]
    if not videos:
        what, shown = "videos" if part in (None, "both") else f"{part} videos", ", ".join(map(str, sources))
        raise SourceError(f"{recipe.name}: found no {what} in {shown}. Expected: {recipe.layout}")
    left_out = Counter(video.split for video in found if not _belongs(video.split, part))
    for split, count in left_out.items():
        logger.info("left out: %d %s videos", count, split)
    published = {split: names for (name, split), names in PUBLISHED.items() if name == recipe.name}
    _compare_with_published(recipe, recipe.listed(folders) if recipe.listed else published, videos, part)
    counts = Counter(f"{video.split}/{video.name}" for video in videos)
    problems = [f"{name} occurs twice in the sources" for name, count in counts.items() if count > 1]
    problems += [f"{video.split}/{video.name}: {text}" for video in videos for text in video.problems]
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise SourceError(f"{recipe.name}: {problems[0]}{more}")
    return videos


def _belongs(split: str, part: str | None) -> bool:
    """Whether a split is of a part; all but ``train`` are ``val``: DAVSOD has four of them, DAVIS-2017 a test-dev."""
    if part in (None, "both"):
        return True
    return (split == "train") == (part == "train")


def _compare_with_published(
    recipe: Recipe, published: Mapping[str, Sequence[str]], videos: Sequence[PublishedVideo], part: str | None
) -> None:
    """Refuse a split that lacks some of its published videos; with a part asked for, and without any, say so."""
    names = {(video.split, video.name) for video in videos}
    for split, complete in published.items():
        missing = [name for name in complete if (split, name) not in names]
        if not missing or not _belongs(split, part):
            continue
        text = f"{len(missing)} of the {len(complete)} {split} videos are missing"
        if part is None and len(missing) < len(complete):
            raise SourceError(
                f"{recipe.name}: {text}: {', '.join(missing)}; --splits train, val or both takes what is there"
            )
        logger.warning("%s: %s: %s", recipe.name, text, ", ".join(missing))


def _write_video(recipe: Recipe, video: PublishedVideo, base: Path, mode: str, work: Path) -> None:
    images = base / "Images" / video.split / video.name
    masks = base / "Annotations" / video.split / video.name
    if images.exists():  # made last, so the video is complete
        if {path.name for path in images.iterdir()} != {_image_name(frame) for frame in video.frames}:
            raise SourceError(
                f"{images} already holds other frames than the sources do; remove it to make it anew"
            )
        return
    partial = work / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    (partial / "masks").mkdir()
    for frame in video.frames:
        _write_frame(recipe, frame, partial / "images", partial / "masks", mode, work)
    shutil.rmtree(masks, ignore_errors=True)
    for source, target in ((partial / "masks", masks), (partial / "images", images)):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _write_still(recipe: Recipe, video: PublishedVideo, base: Path, mode: str, work: Path) -> None:
    images, masks = base / "Images" / video.split, base / "Annotations" / video.split
    (frame,) = video.frames
    image = images / _image_name(frame)
    if image.exists():
        return
    partial = work / "partial"
    for folder in (partial, images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    _write_frame(recipe, frame, partial, partial, mode, work)
    (partial / f"{frame.stem}.png").rename(masks / f"{frame.stem}.png")
    (partial / image.name).rename(image)


def _image_name(frame: PublishedFrame) -> str:
    suffix = frame.image.suffix.lower()
    return f"{frame.stem}{'.png' if suffix == '.ppm' else suffix}"


def _write_frame(
    recipe: Recipe, frame: PublishedFrame, images: Path, masks: Path, mode: str, work: Path
) -> None:
    target = images / _image_name(frame)
    target.unlink(missing_ok=True)
    image = read_rgb(frame.image)  # decoded whole, so that a damaged one is found now
    size = image.shape[:2]
    if frame.image.suffix.lower() == ".ppm":
        Image.fromarray(image).save(target)
    elif mode == "link":
        target.symlink_to(frame.image.resolve())
    else:
        _copy(frame.image, target, hard_link=work in frame.image.parents)
    if frame.mask is None:
        return
    mask = np.asarray(recipe.labels(frame.mask)).astype(np.uint8)
    if mask.shape != size:
        if not recipe.resize_masks:
            raise SourceError(
                f"{frame.mask}: mask is {mask.shape[1]}x{mask.shape[0]} but {frame.image} is {size[1]}x{size[0]}"
            )
        mask = np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    write_labels(masks / f"{frame.stem}.png", mask)


def _copy(source: Path, target: Path, *, hard_link: bool) -> None:
    if hard_link:  # unpacked by us on the same disk: no second copy is needed
        with contextlib.suppress(OSError):  # not every file system has hard links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _describe(
    recipe: Recipe,
    sources: Sequence[Path],
    videos: Sequence[PublishedVideo],
    base: Path,
    before: dict[str, Any],
) -> dict[str, Any]:
    # A set may come in parts, one run for each: what earlier runs made stays described.
    records: dict[str, dict[str, Any]] = before.get("videos", {})
    for video in videos:
        records[f"{video.split}/{video.name}"] = _describe_video(recipe, video, base)
    splits: dict[str, dict[str, int]] = {}
    for key, record in records.items():
        totals = splits.setdefault(key.split("/")[0], {"videos": 0, "frames": 0, "masks": 0, "bytes": 0})
        totals["videos"] += 1
        for count in ("frames", "masks", "bytes"):
            totals[count] += record[count]
    named = {source["name"]: source for source in before.get("sources", [])}
    for source in sources:
        named[source.name] = {
            "name": source.name,
            "bytes": source.stat().st_size if source.is_file() else None,
        }
    return {
        "dataset": recipe.name,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sources": list(named.values()),
        "layout": recipe.layout,
        "truth": recipe.truth,
        "splits": splits,
        "videos": records,
    }


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except ValueError:
        content = None
    kinds = {"videos": dict, "sources": list}
    if not isinstance(content, dict) or any(not isinstance(content.get(k, v()), v) for k, v in kinds.items()):
        raise SourceError(f"{path} is damaged; remove it and run again")
    return content


def _describe_video(recipe: Recipe, video: PublishedVideo, base: Path) -> dict[str, Any]:
    """Counts, size and one SHA-256 over names and contents of what was written."""
    inner = () if get_spec(recipe.name).still else (video.name,)
    digest, size = hashlib.sha256(), 0
    for frame in video.frames:
        paths = [base.joinpath("Images", video.split, *inner, _image_name(frame))]
        if frame.mask is not None:
            paths.append(base.joinpath("Annotations", video.split, *inner, f"{frame.stem}.png"))
        for path in paths:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
            size += len(content)
    masks = sum(frame.mask is not None for frame in video.frames)
    return {"frames": len(video.frames), "masks": masks, "bytes": size, "sha256": digest.hexdigest()}
