"""Files that cases are made of; each function returns a maker, which is called with the working directory."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sandbox import Maker
from small_model import save_small_checkpoint

SIZE = (40, 56)
TINY = """
model: {backbone: mit_b0, flow_adapters: false, memory_stages: [2], memory_frames: 2, ffn_channels: 16,
        decoder_channels: 8, high_to_shallow: none, shallow_to_high: none}
data: {train: [synthetic], val: [synthetic], image_size: [64, 64], clip_frames: 2, workers: 0,
       synthetic: {videos: 2, val_videos: 1, val_frames: 3, size: [64, 64]}}
train: {epochs: 1, batch_size: 2, log_every: 1, val_every: 0, output: out}
"""


@cache
def picture(number: int = 0, size: tuple[int, int] = SIZE, form: str = "PNG") -> bytes:
    levels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(levels).save(encoded, form)
    return encoded.getvalue()


@cache
def mask_picture(number: int = 0, size: tuple[int, int] = SIZE) -> bytes:
    levels = np.zeros(size, np.uint8)
    levels[8:24, 8 + number : 30 + number] = 255
    encoded = io.BytesIO()
    Image.fromarray(levels).save(encoded, "PNG")
    return encoded.getvalue()


@cache
def checkpoint_bytes() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return save_small_checkpoint(Path(folder) / "small.pt").read_bytes()


@cache
def run_files() -> dict[str, bytes]:
    """What `hmhi segment` leaves of one clip."""
    import tempfile

    from hmhi.commands.segment import main

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for make in (checkpoint(), frames()):
            make(root)
        words = ("--checkpoint", "small.pt", "--input", "clip", "--output", "run")
        code = main([word if word.startswith("--") else str(root / word) for word in words])
        assert code == 0
        files = [path for path in (root / "run").rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}


def finished_run(root: Path) -> None:
    """The folder ``run``, with the masks of one clip."""
    for place, content in run_files().items():
        put(place, content)(root)


def put(place: str, content: bytes | str) -> Maker:
    """A file."""

    def make(root: Path) -> None:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def frames(place: str = "clip", count: int = 2, size: tuple[int, int] = SIZE, form: str = "png") -> Maker:
    """A folder of frames 0.png, 1.png ..."""

    def make(root: Path) -> None:
        for number in range(count):
            put(f"{place}/{number}.{form}", picture(number, size, {"png": "PNG", "jpg": "JPEG"}[form]))(root)

    return make


def masks(place: str, count: int = 3, shift: int = 0, size: tuple[int, int] = SIZE) -> Maker:
    """A folder of masks 0.png, 1.png ..."""

    def make(root: Path) -> None:
        for number in range(count):
            put(f"{place}/{number}.png", mask_picture(number + shift, size))(root)

    return make


def trees(root: Path) -> None:
    """Predictions and annotations of one sequence."""
    masks("pred/a", shift=1)(root)
    masks("gt/a")(root)


def checkpoint(place: str = "small.pt") -> Maker:
    return lambda root: put(place, checkpoint_bytes())(root)


def checkpoint_with(**changes: object) -> Maker:
    """The small checkpoint with parts replaced, or dropped where None is given."""

    def make(root: Path) -> None:
        import torch

        contents = torch.load(io.BytesIO(checkpoint_bytes()), weights_only=True)
        for key, value in changes.items():
            contents.pop(key) if value is None else contents.update({key: value})
        torch.save(contents, root / "small.pt")

    return make


def config(text: str = TINY, place: str = "tiny.yaml") -> Maker:
    return put(place, text)


def video(place: str = "clip.mp4", count: int = 3) -> Maker:
    def make(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(root / "made.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
        for number in range(count):
            writer.write(np.full((48, 64, 3), 60 * number % 256, np.uint8))
        writer.release()
        os.replace(root / "made.mp4", root / place)

    return make


def pack(place: str, members: dict[str, bytes]) -> Maker:
    def make(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(root / place, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return make


def link(place: str, target: str) -> Maker:
    def make(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(target)

    return make


def pipe(place: str) -> Maker:
    def make(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(root / place)

    return make


def folder(place: str) -> Maker:
    return lambda root: (root / place).mkdir(parents=True, exist_ok=True)


def rename(place: str, to: str | bytes) -> Maker:
    return lambda root: os.replace(root / place, os.fsencode(root) + b"/" + os.fsencode(to))


def spoil(place: str, how: Callable[[bytes], bytes]) -> Maker:
    """Replace a file's contents by what a function makes of them."""
    return lambda root: (root / place).write_bytes(how((root / place).read_bytes()))


def copy(place: str, to: str) -> Maker:
    return lambda root: shutil.copytree(root / place, root / to)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """One bit in the middle."""
    if not content:
        return content
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def nothing(content: bytes) -> bytes:
    return b""


def text(content: bytes) -> bytes:
    return b"<html>404 not found</html>\n"


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ../owned",)


def evil_pickle(content: bytes = b"") -> bytes:
    return pickle.dumps({"model": Evil()})


def bomb(side: int = 20000) -> bytes:
    """A picture of many pixels in few bytes."""
    encoded = io.BytesIO()
    Image.new("1", (side, side)).save(encoded, "PNG")
    return encoded.getvalue()


def document(value: object) -> str:
    return json.dumps(value)
