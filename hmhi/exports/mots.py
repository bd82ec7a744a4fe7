"""MOTS PNG: one 16-bit image a frame, each pixel 1000 times its class plus the object's id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hmhi.exports.run import LabelVideo

CLASS = 1000  # the first and only class


def write_mots(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``<video>/instances/<frame>.png``, and ``labels.txt`` beside them, as CVAT and Datumaro want it."""
    for video in videos:
        place = folder / video.name / "instances"
        place.mkdir(parents=True)
        for stem, labels in video:
            values = np.where(labels > 0, CLASS + labels.astype(np.uint16), 0).astype(np.uint16)
            Image.fromarray(values).save(place / f"{stem}.png")
        (place / "labels.txt").write_text(f"{category}\n", encoding="utf-8")
