"""Small trees of masks that the evaluation tests score."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (20, 30)


def disc(shift: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) bool disc that moves to the right."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - size[0] / 2) ** 2 + (x - 10 - shift) ** 2 < 36


def save(path: Path, mask: np.ndarray) -> None:
    """Write {0, 255} for bool, the values themselves for uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * np.uint8(255) if mask.dtype == bool else mask).save(path)


def save_palette(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", ids.shape[::-1], ids.astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    image.save(path)


def make_trees(root: Path, sequences: dict[str, int], shift: int = 1) -> tuple[Path, Path]:
    """Sequences of discs, and predictions that lie ``shift`` pixels beside them."""
    for name, frames in sequences.items():
        for index in range(frames):
            save(root / "gt" / name / f"{index:05d}.png", disc(index))
            save(root / "pred" / name / f"{index:05d}.png", disc(index + shift))
    return root / "pred", root / "gt"
