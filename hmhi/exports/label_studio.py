"""Label Studio: tasks with brush masks as predictions, which a person then corrects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from hmhi.exports.objects import masks_of
from hmhi.exports.run import LabelVideo
from hmhi.version import __version__

IMAGE_ROOT = "/data/local-files/?d=images"
"""Where Label Studio serves its own disk (LOCAL_FILES_SERVING_ENABLED)."""
_RUN_BITS = (3, 4, 8, 16)  # lengths that a run's own length may take
_WORD = 8  # bits of a value


def write_label_studio(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``tasks.json``, a task for each frame, and ``labels.xml``, the project's labelling interface."""
    tasks = [
        {
            "data": {"image": f"{IMAGE_ROOT}/{quote(f'{video.name}/{video.image_name(stem)}')}"},
            "predictions": [
                {
                    "model_version": f"hmhi {__version__}",
                    "result": [_region(number, mask, category) for number, mask in masks_of(labels)],
                }
            ],
        }
        for video in videos
        for stem, labels in video
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks) + "\n", encoding="utf-8")
    (folder / "labels.xml").write_text(
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        '  <BrushLabels name="tag" toName="image">\n'
        f'    <Label value={quoteattr(category)} background="#e63c28"/>\n  </BrushLabels>\n</View>\n',
        encoding="utf-8",
    )


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encode a mask as Label Studio's brush does: RGBA levels 0 and 255, run by run, in a stream of bits.

    A head of 32 bits for the number of levels, 5 for the length of one less 1, and four times 4 for the lengths
    that a run's own length may take, less 1. Then for each run: one bit (1, as it repeats a level), two bits for
    which of the four lengths, the run less 1 in so many bits, and the level.

    Args:
        mask: (H, W) bool.

    Returns:
        The stream as bytes.
    """
    head = [f"{4 * mask.size:032b}", f"{_WORD - 1:05b}", *(f"{length - 1:04b}" for length in _RUN_BITS)]
    bits = "".join([*head, *_runs(mask)])
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _runs(mask: np.ndarray) -> Iterator[str]:
    pixels = mask.ravel()
    borders = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, [pixels.size]])
    longest = 1 << _RUN_BITS[-1]
    for start, run in zip(borders[:-1].tolist(), (4 * np.diff(borders)).tolist(), strict=True):
        level = f"{255 if pixels[start] else 0:0{_WORD}b}"
        while run > 0:
            part = min(run, longest)
            which = next(place for place, length in enumerate(_RUN_BITS) if part <= 1 << length)
            yield f"1{which:02b}{part - 1:0{_RUN_BITS[which]}b}{level}"
            run -= part


def _region(number: int, mask: np.ndarray, category: str) -> dict[str, Any]:
    return {
        "id": f"object{number}", "type": "brushlabels", "from_name": "tag", "to_name": "image",
        "original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [category]},
    }  # fmt: skip
