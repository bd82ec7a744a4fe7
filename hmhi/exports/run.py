"""What a run of ``hmhi segment`` left behind, video by video: label images, and the frames they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from hmhi.errors import UserError
from hmhi.media.atomic import write_atomically
from hmhi.media.masks import VOID, read_labels
from hmhi.media.packs import IMAGE_SUFFIXES, MASK_SUFFIXES, list_files, read_bytes
from hmhi.media.pictures import read_rgb

UNKNOWN_SUFFIX = ".jpg"
"""Of frames whose source is gone, or is a video file."""


@dataclass(frozen=True)
class LabelVideo:
    """The masks of one video, read when they are asked for."""

    name: str
    masks: tuple[Path, ...] = field(repr=False)
    """Label images in the order of frames."""
    frames: dict[str, Path] = field(repr=False)
    """Stem -> frame of the source; empty where the source is gone, or is a camera."""

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Stem and labels (H, W) uint8 of each frame: 0 is background, other values are object ids."""
        for path in self.masks:
            labels = read_labels(path)
            yield path.stem, np.where(labels == VOID, 0, labels)

    def image_name(self, stem: str) -> str:
        """File name of a frame, as annotation tools look for it."""
        suffix = self.frames[stem].suffix.lower() if stem in self.frames else UNKNOWN_SUFFIX
        return stem + (suffix if suffix in IMAGE_SUFFIXES else UNKNOWN_SUFFIX)

    def write_images(self, folder: Path) -> None:
        """Put the frames into a folder: copies of image files, JPEGs of a video file's frames.

        Raises:
            UserError: Frames are missing.
        """
        for mask in self.masks:
            frame = self.frames.get(mask.stem)
            if frame is None:
                raise UserError(
                    f"{self.name}: frame {mask.stem} of the source cannot be found, so no images can be written; "
                    f"leave --images out"
                )
            with write_atomically(folder / self.image_name(mask.stem)) as stream:
                if frame.suffix.lower() in IMAGE_SUFFIXES:
                    stream.write(read_bytes(frame))
                else:
                    Image.fromarray(read_rgb(frame)).save(stream, "jpeg", quality=95)


def find_label_videos(run: Path) -> list[LabelVideo]:
    """The videos of a folder that ``hmhi segment`` wrote, by name.

    Args:
        run: Folder with ``masks/<video>/<frame>.png`` and, where there is one, ``sequences/<video>.json``.

    Raises:
        UserError: It holds no masks, or a record is damaged.
    """
    folders = sorted(path for path in (run / "masks").glob("*") if path.is_dir() and path.name[0] != ".")
    if not folders:
        raise UserError(
            f"no masks in {run}: expected {run / 'masks'}/<video>/<frame>.png, as hmhi segment writes"
        )
    videos = []
    for folder in folders:
        masks = tuple(list_files(folder, MASK_SUFFIXES))
        if masks:
            videos.append(LabelVideo(folder.name, masks, _frames(run / "sequences" / f"{folder.name}.json")))
    return videos


def _frames(record: Path) -> dict[str, Path]:
    """Stem -> frame of the source that a record names."""
    if not record.exists():
        return {}
    try:
        source = Path(json.loads(record.read_text(encoding="utf-8"))["source"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{record} is damaged; segment its video anew") from None
    if not source.exists():
        return {}
    single = source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES
    return {path.stem: path for path in ([source] if single else list_files(source, IMAGE_SUFFIXES))}
