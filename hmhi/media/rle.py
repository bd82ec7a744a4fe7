"""Masks as COCO run-length codes, and videos of them as YouTube-VIS documents, which hold such codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as pycocotools does, so that ``pycocotools.mask.decode`` reads it.

    Pixels are taken column by column, and runs of 0 and 1 alternate, a run of 0 (perhaps empty) first. From the
    fourth run on, a length is stored as its difference from the one two before. Each number becomes groups of
    five bits, low ones first, in characters from "0" on; bit 5 says that another group follows.

    Args:
        mask: (H, W) bool.

    Returns:
        ``{"size": [H, W], "counts": characters}``.
    """
    pixels = mask.T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first = [0] if pixels[0] else []
    runs = np.diff(np.concatenate([first, [0], changes, [pixels.size]])).astype(np.int64).tolist()
    characters = []
    for place, run in enumerate(runs):
        number = run - runs[place - 2] if place > 2 else run
        while True:
            group, number = number & 31, number >> 5
            last = number == (-1 if group & 16 else 0)  # the sign is that of bit 4
            characters.append(chr(48 + (group if last else group | 32)))
            if last:
                break
    return {"size": list(mask.shape), "counts": "".join(characters)}


class MaskTrack:
    """Collects the masks of one video as a YouTube-VIS document with one annotation for each object.

    Args:
        name: Of the video.
        category: What the objects are.
    """

    def __init__(self, name: str, category: str = "salient object") -> None:
        self._name, self._category = name, category
        self._files: list[str] = []
        self._objects: dict[int, _Object] = {}
        self._size = (0, 0)

    def add(self, masks: Mapping[int, np.ndarray], stem: str) -> None:
        """Add a frame.

        Args:
            masks: Object id to (H, W) bool.
            stem: Of the frame's file.
        """
        for object_id, mask in masks.items():
            self._size = mask.shape[0], mask.shape[1]
            track = self._objects.setdefault(object_id, _Object())
            track.pad(len(self._files))
            track.add(mask)
        self._files.append(f"{self._name}/{stem}")

    def document(self) -> dict[str, Any]:
        """The video and its annotations: ``segmentations``, ``bboxes`` [x, y, w, h], ``areas``, frame by frame."""
        height, width = self._size
        for track in self._objects.values():
            track.pad(len(self._files))
        return {
            "videos": [
                {
                    "id": 1, "name": self._name, "height": height, "width": width,
                    "length": len(self._files), "file_names": self._files,
                }
            ],
            "categories": [{"id": 1, "name": self._category}],
            "annotations": [
                {
                    "id": object_id, "video_id": 1, "category_id": 1, "iscrowd": 0, "height": height, "width": width,
                    "length": len(self._files), "segmentations": track.codes, "bboxes": track.boxes,
                    "areas": track.areas,
                }
                for object_id, track in sorted(self._objects.items())
            ],
        }  # fmt: skip


class _Object:
    """Codes, boxes and areas of one object; None, the format's word for "not in this frame", where it is absent."""

    def __init__(self) -> None:
        self.codes: list[dict[str, Any] | None] = []
        self.boxes: list[list[int] | None] = []
        self.areas: list[int | None] = []

    def add(self, mask: np.ndarray) -> None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size == 0:
            self.pad(len(self.codes) + 1)
            return
        left, top = int(columns[0]), int(rows[0])
        self.codes.append(encode_mask(mask))
        self.boxes.append([left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1])
        self.areas.append(int(mask.sum()))

    def pad(self, frames: int) -> None:
        """Be absent up to a number of frames."""
        for values in (self.codes, self.boxes, self.areas):
            values.extend([None] * (frames - len(values)))
