"""The masks that belong to the videos of ``--input``, and which frames a data set wants written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hmhi.data.index import SplitLayout
from hmhi.errors import UserError
from hmhi.evaluation.object_files import read_meta
from hmhi.inference.inputs import InputVideo, VideoInputs, find_inputs, find_videos
from hmhi.media.packs import IMAGE_SUFFIXES, find_sequence, list_files

log = logging.getLogger(__name__)

ONE_OBJECT = ("davis16",)
"""Data sets whose objects are one."""
HIDDEN_TRUTH = ("davis17_testdev",)
"""Data sets whose masks are those of first frames alone."""


def find_prompted(
    source: str,
    names: Sequence[str] = (),
    data_root: Path = Path("data"),
    *,
    first_mask: Path | None = None,
    masks: Path | None = None,
) -> VideoInputs:
    """Find the videos that a text names, and the masks of their objects.

    Args:
        source: As for `find_inputs`.
        names: Only these videos; empty takes all.
        data_root: Folder that holds the data sets.
        first_mask: The mask of the first frame that is read of the one video.
        masks: Folder with the masks of each video. Without both, those of a data set are taken.

    Raises:
        FileNotFoundError: Nothing is there, or no frames or masks.
        UserError: Files do not match, or there are no masks; the message lists them.
    """
    if first_mask is not None and masks is not None:
        raise UserError("give --first-mask or --masks, not both")
    inputs = find_inputs(source, "dis", names, data_root)
    layout = inputs.layout
    if layout is not None:
        assert inputs.dataset is not None
        frames = all_frames(layout, inputs.dataset)
        if frames != layout.images:
            videos = find_videos(frames, None, [video.name for video in inputs.videos])
            inputs = replace(inputs, videos=videos, folders=[*inputs.folders, frames])
    if first_mask is not None:
        return replace(inputs, videos=with_first_mask(inputs.videos, first_mask))
    if masks is not None:
        return replace(inputs, videos=with_masks(inputs.videos, masks), folders=[*inputs.folders, masks])
    if layout is not None:
        masked = with_dataset_masks(inputs.videos, layout, str(inputs.dataset))
        prompts_only = inputs.dataset in HIDDEN_TRUTH or masked[0].listed is not None
        truth = None if prompts_only else inputs.truth
        return replace(inputs, videos=masked, truth=truth, folders=[*inputs.folders, layout.masks])
    raise UserError(
        f"{source}: no mask says which objects to follow; give --first-mask FILE, the mask of the first frame, or "
        f"--masks FOLDER"
    )


def with_first_mask(videos: Sequence[InputVideo], mask: Path) -> list[InputVideo]:
    """The one video, with the mask of its first frame.

    Raises:
        FileNotFoundError: No such file.
        UserError: There are several videos.
    """
    if not mask.is_file():
        raise FileNotFoundError(f"mask not found: {mask}")
    if len(videos) != 1:
        raise UserError(
            f"--first-mask {mask} belongs to one video, and the input holds {len(videos)}; choose one with "
            f"--sequences, or give --masks, a folder with the masks of each"
        )
    return [replace(videos[0], masks=mask)]


def with_masks(videos: Sequence[InputVideo], folder: Path) -> list[InputVideo]:
    """Videos with their masks: a folder, zip file or picture of each video's name, or the folder's own files.

    Raises:
        FileNotFoundError: No such folder.
        UserError: Videos lack masks; lists all.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"mask folder not found: {folder}")
    found = {video.name: _masks_of(video.name, folder) for video in videos}
    if len(videos) == 1 and found[videos[0].name] is None and list_files(folder, IMAGE_SUFFIXES):
        found[videos[0].name] = folder
    if missing := [name for name, masks in found.items() if masks is None]:
        raise UserError(
            f"{folder} has no masks for: {', '.join(missing)}; expected {folder / missing[0]}/<frame>.png, or "
            f"{folder / missing[0]}.png for its first frame. Leave videos out with --sequences"
        )
    return [replace(video, masks=found[video.name]) for video in videos]


def with_dataset_masks(videos: Sequence[InputVideo], layout: SplitLayout, dataset: str) -> list[InputVideo]:
    """Videos of a data set with its own masks. Where there is a ``meta.json``, masks are wanted of listed frames.

    Raises:
        FileNotFoundError: The data set has no masks.
        UserError: Videos lack masks, or ``meta.json`` does not list one of them.
    """
    merged = dataset in ONE_OBJECT
    masked = [replace(video, merged=merged) for video in with_masks(videos, layout.masks)]
    path = _meta_file(layout)
    if path is None:
        return masked
    meta = read_meta(path).frames
    if missing := [video.name for video in masked if video.name not in meta]:
        raise UserError(f"{path} does not list: {', '.join(missing)}; leave them out with --sequences")
    return [
        replace(video, listed=frozenset(stem for stems in meta[video.name].values() for stem in stems))
        for video in masked
    ]


def all_frames(layout: SplitLayout, dataset: str) -> Path:
    """Where the frames of a data set lie that a network should see, of YouTube-VOS those of ``valid_all_frames``."""
    if _meta_file(layout) is None:
        return layout.images
    images = layout.images
    if _as_published(layout):
        dense = images.parent.with_name(f"{images.parent.name}_all_frames") / images.name
    else:
        dense = images.with_name(f"{images.name}_all_frames")
    if dense.is_dir():
        return dense
    log.warning("%s: %s is not there, so that every fifth frame is read, which costs much", dataset, dense)
    return images


def _as_published(layout: SplitLayout) -> bool:
    """Whether it is YouTube-VOS's own layout, ``valid/JPEGImages``, and not ``Images/valid``."""
    return layout.images.name == "JPEGImages"


def _meta_file(layout: SplitLayout) -> Path | None:
    """What lists the frames in which the masks of YouTube-VOS are scored."""
    images = layout.images
    own = images.parent.parent / f"meta_{images.name}.json"  # as tools/prepare_data.py writes it
    path = images.parent / "meta.json" if _as_published(layout) else own
    return path if path.is_file() else None


def _masks_of(name: str, folder: Path) -> Path | None:
    sequence = find_sequence(folder, name)
    if sequence is not None and (sequence.is_dir() or sequence.suffix.lower() == ".zip"):
        return sequence
    picture = folder / f"{name}.png"
    return picture if picture.is_file() else None
