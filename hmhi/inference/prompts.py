"""Masks of objects that come from outside: a picture, a folder, arrays; told apart by frame and by object.

H W pixels of the source.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hmhi.errors import BadFileError, UserError
from hmhi.inference.sources import Source
from hmhi.media.masks import PALETTE, VOID, levels_to_labels, object_ids, read_labels, read_palette
from hmhi.media.packs import IMAGE_SUFFIXES, list_files

log = logging.getLogger(__name__)

MaskUse = Literal["first", "new", "all"]
"""Which masks of a folder count: those of its first file; each object's first one; all of them."""

MaskLike = str | Path | np.ndarray | Mapping[int, np.ndarray]
"""The masks of one frame: a picture of ids, (H, W) ids or bool, or id to (H, W) bool."""

MasksLike = str | Path | np.ndarray | Mapping[int, MaskLike]
"""The masks of a video: a folder of pictures, or a mapping by frame number; one picture or array is of the first
frame that is read."""

FIRST_READ = -1
"""In the place of a frame's number: the first frame that is read, whichever that is."""


@dataclass(frozen=True)
class GivenMasks:
    """The masks of a video by frame; nothing is decoded before its frame comes."""

    name: str
    """Of the folder or picture, for messages."""
    by_frame: Mapping[int, MaskLike]
    """Frame number in the source, or `FIRST_READ`, to its masks."""
    complete: bool = False
    """Whether files come from a folder, which may hold empty masks too, and more than is wanted."""
    use: MaskUse = "all"
    """Which of them count."""
    objects: frozenset[int] = frozenset()
    """Ids that are followed; empty for all."""
    merged: bool = False
    """Whether all objects are one, with the id 1."""

    def at(
        self, frame: int, size: tuple[int, int], known: Collection[int], *, first: bool
    ) -> dict[int, np.ndarray]:
        """Masks that count at a frame.

        Args:
            frame: Its number in the source.
            size: (H, W) of the frame.
            known: Ids that were given at frames before.
            first: Whether it is the first frame that is read.

        Returns:
            Id to (H, W) bool, none of them empty and none overlapping another.

        Raises:
            UserError: The mask cannot be used; names its file or frame.
        """
        mask = self.by_frame.get(FIRST_READ if first and FIRST_READ in self.by_frame else frame)
        if mask is None:
            return {}
        where = str(mask) if isinstance(mask, str | Path) else f"the mask of frame {frame}"
        found = split_mask(mask, size, where, merged=self.merged, tell_void=not known)
        if not self.complete:
            check_found(found, where, self.objects)
        wanted = {number: one for number, one in found.items() if not self.objects or number in self.objects}
        return {number: one for number, one in wanted.items() if self.use != "new" or number not in known}

    @property
    def palette(self) -> tuple[int, ...]:
        """Colours of the first mask that is a palette image; `PALETTE` where none is."""
        pictures = [mask for _, mask in sorted(self.by_frame.items()) if isinstance(mask, str | Path)]
        return read_palette(Path(pictures[0])) if pictures else PALETTE


def open_masks(
    masks: MasksLike | None,
    source: Source,
    *,
    use: MaskUse = "new",
    objects: Collection[int] = (),
    merged: bool = False,
) -> GivenMasks:
    """Find which frames of a source have masks.

    Args:
        masks: See `MasksLike`. Files of a folder (or zip file) are called like the frames, or like the numbers of a
            video's frames (``00012.png``).
        source: The frames.
        use: Which masks of a folder count. ``new``: each object's first one, whatever later files hold; ``first``:
            those of the first file alone; ``all``: later masks of an object correct it. What is not a folder counts
            as it is.
        objects: Ids that are followed; empty for all.
        merged: Take all objects for one, with the id 1.

    Raises:
        FileNotFoundError: No such file or folder, or no masks in it.
        UserError: There are no masks, a file's name is that of no frame, or an id is none.
    """
    if use not in ("first", "new", "all"):
        raise UserError(f"use_masks must be first, new or all, got {use!r}")
    for number in objects:
        _check_id(number, "objects")
    wanted = frozenset(objects)
    if masks is None:
        raise UserError(
            f"{source.name}: no mask says which objects to follow; give the mask of its first frame, or a folder of "
            f"masks (--first-mask or --masks, masks= in Python)"
        )
    if isinstance(masks, np.ndarray):
        return GivenMasks("the mask", {FIRST_READ: masks}, objects=wanted, merged=merged)
    if isinstance(masks, Mapping):
        for frame in masks:
            if not isinstance(frame, int | np.integer) or frame < 0:
                raise UserError(f"masks go by frame numbers from 0, got {frame!r}")
        return GivenMasks("the masks", dict(masks), objects=wanted, merged=merged)
    path = Path(masks)
    if not path.exists():
        raise FileNotFoundError(f"mask not found: {path}")
    if path.is_file() and path.suffix.lower() != ".zip":
        return GivenMasks(str(path), {FIRST_READ: path}, objects=wanted, merged=merged)
    files = _files_by_frame(path, source)
    if use == "first":
        first = min(files)
        return GivenMasks(str(path), {first: files[first]}, objects=wanted, merged=merged)
    return GivenMasks(str(path), files, complete=True, use=use, objects=wanted, merged=merged)


def split_mask(
    mask: MaskLike, size: tuple[int, int], where: str, *, merged: bool = False, tell_void: bool = False
) -> dict[int, np.ndarray]:
    """The masks of one frame, by id.

    Palette indices and integers are ids, 255 is undecided and counts as background; a mask of 0 and 255 alone, or of
    bools, shows object 1.

    Args:
        mask: See `MaskLike`.
        size: (H, W) that it must have.
        where: Its name in messages.
        merged: Take all objects for one, with the id 1.
        tell_void: Whether to log a warning of undecided pixels.

    Returns:
        Id to (H, W) bool, in the order of ids. Masks of a mapping may be empty; nothing else is.

    Raises:
        FileNotFoundError: No such file.
        UserError: It cannot be used.
    """
    if isinstance(mask, Mapping):
        found = _check_masks(mask, size, where)
    else:
        labels = _read(Path(mask), where) if isinstance(mask, str | Path) else _to_labels(mask, where)
        _check_size(labels, size, where)
        if tell_void and (labels == VOID).any():
            log.warning("%s: undecided pixels (255) count as background", where)
        found = {number: labels == number for number in object_ids(labels)}
    if merged and found:
        found = {1: np.logical_or.reduce(list(found.values()))}
    return found


def check_found(found: Mapping[int, np.ndarray], where: str, objects: Collection[int] = ()) -> None:
    """Refuse masks that show no object, or none that is wanted.

    Raises:
        UserError: Names the mask.
    """
    empty = [number for number, mask in found.items() if not mask.any()]
    if empty:
        raise UserError(f"{where}: object {empty[0]} has no pixel; mark it, or leave it out")
    if not found:
        raise UserError(f"{where}: the mask is empty; mark at least one object")
    if objects and not found.keys() & set(objects):
        raise UserError(
            f"{where}: shows object {_list(found)} and none of the wanted, {_list(objects)}; name others"
        )


def _list(ids: Collection[int]) -> str:
    return ", ".join(str(number) for number in sorted(ids))


def _files_by_frame(folder: Path, source: Source) -> dict[int, MaskLike]:
    files = list_files(folder, IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"no masks in {folder}; expected PNG files named like the frames of {source.name}"
        )
    numbers = None if source.stems is None else {stem: index for index, stem in enumerate(source.stems)}
    found: dict[int, MaskLike] = {}
    for file in files:
        number = _number(file.stem) if numbers is None else numbers.get(file.stem)
        if number is None:
            raise UserError(
                f"{file}: {source.name} has no frame of this name; name masks like the frames, such as "
                f"{source.stem(0)}.png"
            )
        if number in found:
            raise UserError(f"{file}: a second mask of frame {number}, beside {found[number]}; remove one")
        found[number] = file
    return found


def _number(stem: str) -> int | None:
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 10 else None


def _read(path: Path, where: str) -> np.ndarray:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise BadFileError(f"{where}: JPEG changes the values of a mask; save it as palette PNG")
    return read_labels(path)


def _to_labels(mask: np.ndarray, where: str) -> np.ndarray:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "biu":
        shown = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise UserError(f"{where} must be a picture of ids, (H, W) ids or bool, or masks by id; got {shown}")
    if mask.dtype == bool:
        return mask.astype(np.uint8)
    if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) <= VOID:
        raise UserError(f"{where}: ids go from 1 to {VOID - 1}, but it holds {mask.min()} to {mask.max()}")
    return levels_to_labels(mask.astype(np.uint8), where, is_ids=False)


def _check_masks(masks: Mapping[int, np.ndarray], size: tuple[int, int], where: str) -> dict[int, np.ndarray]:
    """Masks by id as they are, in the order of ids."""
    claimed = np.zeros(size, bool)
    for number, mask in masks.items():
        _check_id(number, where)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            shown = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise UserError(f"{where}: the mask of object {number} must be an array of bool, got {shown}")
        _check_size(mask, size, f"{where}, object {number}")
        if (claimed & mask).any():
            raise UserError(f"{where}: the mask of object {number} overlaps that of another object")
        claimed |= mask
    return {int(number): masks[number] for number in sorted(masks)}


def _check_id(number: object, where: str) -> None:
    if not isinstance(number, int | np.integer) or not 0 < number < VOID:
        raise UserError(f"{where}: an object's id is a whole number from 1 to {VOID - 1}, got {number!r}")


def _check_size(mask: np.ndarray, size: tuple[int, int], where: str) -> None:
    if mask.shape != size:
        shape = " x ".join(str(side) for side in reversed(mask.shape))
        raise UserError(
            f"{where}: the mask is {shape}, but the frame {size[1]} x {size[0]}; save it at the size of the frame"
        )
