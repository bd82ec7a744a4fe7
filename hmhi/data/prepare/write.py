"""Run a recipe: published archives in, a folder of our layout and its manifest out."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from hmhi.data.catalog import get_spec
from hmhi.data.prepare.archive import is_archive, unpack
from hmhi.data.prepare.recipe import Recipe, SourceError, SourceFrame, SourceVideo
from hmhi.media.atomic import write_json
from hmhi.media.masks import write_labels
from hmhi.media.packs import IMAGE_SUFFIXES
from hmhi.media.pictures import read_rgb, read_size

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"

# Suffixes that occur in the published archives; the rest (PDFs, MATLAB files, ...) is not unpacked.
_WANTED = IMAGE_SUFFIXES | {".ppm", ".pgm", ".txt"}


def prepare(
    recipe: Recipe, sources: Sequence[Path], root: Path, mode: Literal["copy", "link"] = "copy"
) -> dict[str, Any]:
    """Convert a data set; a run that was interrupted continues where it stopped.

    Every video appears under its final name only when it is complete. Images are copied or linked as they
    are (``.ppm`` becomes ``.png``); masks are always rewritten as palette PNG in {0, 1}.

    Args:
        recipe: The data set.
        sources: Folders or zip or tar archives, as published.
        root: Folder that will hold the data set's folder.
        mode: ``link`` makes symbolic links to images in source folders instead of copies.

    Returns:
        The manifest, which is also written to ``<root>/<folder>/manifest.json``.

    Raises:
        FileNotFoundError: A source does not exist.
        SourceError: The sources have another layout than the published one.
        ValueError: A file or archive is damaged.
    """
    base = root / get_spec(recipe.name).folder
    work = base / ".work"
    folders = _open_sources(recipe, sources, work, mode)
    try:
        videos = recipe.find(folders)
    except SourceError as error:
        raise SourceError(f"{recipe.name}: {error}. Expected: {recipe.layout}") from None
    if not videos:
        shown = ", ".join(str(source) for source in sources)
        raise SourceError(f"{recipe.name}: found no videos in {shown}. Expected: {recipe.layout}")
    _refuse_duplicates(recipe, videos)
    still = get_spec(recipe.name).still
    for video in tqdm(videos, desc=recipe.name, unit="video", disable=None):
        if still:
            _write_still(recipe, video, base, mode, work)
        else:
            _write_video(recipe, video, base, mode, work)
    manifest = _describe(recipe, sources, videos, base)
    write_json(base / MANIFEST, manifest, indent=1)
    shutil.rmtree(work)
    return manifest


def _open_sources(recipe: Recipe, sources: Sequence[Path], work: Path, mode: str) -> list[Path]:
    folders = []
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder")
        if source.is_file() and not is_archive(source):
            raise SourceError(f"{source}: neither a folder nor a zip or tar archive")
        if is_archive(source) and mode == "link":
            raise SourceError(
                f"{source}: images inside an archive cannot be linked to; copy them, or unpack it"
            )
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
    return path.suffix.lower() in _WANTED and not hidden and recipe.skip_folders.isdisjoint(path.parts)


def _refuse_duplicates(recipe: Recipe, videos: Sequence[SourceVideo]) -> None:
    seen: set[tuple[str, str]] = set()
    for video in videos:
        if (video.split, video.name) in seen:
            raise SourceError(f"{recipe.name}: {video.split}/{video.name} occurs twice in the sources")
        seen.add((video.split, video.name))


def _write_video(recipe: Recipe, video: SourceVideo, base: Path, mode: str, work: Path) -> None:
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


def _write_still(recipe: Recipe, video: SourceVideo, base: Path, mode: str, work: Path) -> None:
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


def _image_name(frame: SourceFrame) -> str:
    suffix = frame.image.suffix.lower()
    return f"{frame.stem}{'.png' if suffix == '.ppm' else suffix}"


def _write_frame(
    recipe: Recipe, frame: SourceFrame, images: Path, masks: Path, mode: str, work: Path
) -> None:
    target = images / _image_name(frame)
    target.unlink(missing_ok=True)
    if frame.image.suffix.lower() == ".ppm":
        Image.fromarray(read_rgb(frame.image)).save(target)
    elif mode == "link":
        target.symlink_to(frame.image.resolve())
    else:
        _copy(frame.image, target, hard_link=work in frame.image.parents)
    size = read_size(target)
    if frame.mask is None:
        return
    mask = np.asarray(recipe.foreground(frame.mask)).astype(np.uint8)
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
    recipe: Recipe, sources: Sequence[Path], videos: Sequence[SourceVideo], base: Path
) -> dict[str, Any]:
    before = _read_manifest(base / MANIFEST)
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise SourceError(f"{path} is damaged; remove it and run again") from None
    return dict(content)


def _describe_video(recipe: Recipe, video: SourceVideo, base: Path) -> dict[str, Any]:
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
