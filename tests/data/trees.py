"""Miniature data sets on disk."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

LAYOUTS = {
    "ours": ("Images/{split}", "Annotations/{split}", "Flows/{split}"),
    "release": ("frame/{split}", "mask/{split}", "flow/{split}"),
    "davis": ("JPEGImages/480p", "Annotations/480p", "Flow"),
}


def picture(seed, size=(40, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encode(kind, array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def half_mask(size=(40, 64), value=255):
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = value
    return mask


def save(path: Path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def write_video(
    base: Path,
    name: str,
    frames=6,
    *,
    layout="ours",
    split="train",
    size=(40, 64),
    flows=None,
    masks=None,
    first=0,
):
    """Write a sequence; ``flows`` and ``masks`` name the frames that have one (all but the last, all)."""
    images_at, masks_at, flows_at = (base / part.format(split=split) / name for part in LAYOUTS[layout])
    for t in range(frames):
        save(images_at / f"{first + t:05d}.jpg", picture(t, size))
    for t in range(frames - 1) if flows is None else flows:
        save(flows_at / f"{first + t:05d}.png", picture(100 + t, size))
    for t in range(frames) if masks is None else masks:
        save(masks_at / f"{first + t:05d}.png", half_mask(size))


def write_davis_list(base: Path, split: str, lines, edition="480p"):
    path = base / "ImageSets" / edition / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
