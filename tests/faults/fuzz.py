"""Mutated files through one door: python fuzz.py DOOR FIRST_SEED COUNT. Prints what got through that is no UserError.

A process of its own, because a decoder that crashes takes its process with it.
"""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from things import checkpoint_bytes, mask_picture, pack, picture, video

from hmhi.errors import UserError


def read_archive(path: Path) -> None:
    from hmhi.media.packs import find_frames
    from hmhi.media.pictures import read_rgb

    for frames in find_frames(path).values():
        for frame in frames:
            read_rgb(frame)


def read_video(path: Path) -> None:
    from hmhi.inference.sources import open_source

    for _ in open_source(path):
        pass


def read_picture(path: Path) -> None:
    from hmhi.media.pictures import read_rgb

    assert read_rgb(path).shape[2] == 3


def read_mask(path: Path) -> None:
    from hmhi.media import masks

    assert masks.read_mask(path).max() <= 1
    masks.read_levels(path)
    masks.read_labels(path)


def read_flow(path: Path) -> None:
    from hmhi.flow.files import read_flow_rgb, read_flow_size

    assert read_flow_rgb(path).shape[:2] == read_flow_size(path)


def read_checkpoint(path: Path) -> None:
    from hmhi.models.weights import load_model

    load_model(path)


def made(maker: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        maker(Path(folder))
        return (Path(folder) / name).read_bytes()


def flow_bytes() -> bytes:
    from hmhi.flow.codec import write_flo

    field = np.random.default_rng(0).normal(size=(24, 32, 2)).astype(np.float32)
    return made(lambda root: write_flo(root / "a.flo", field), "a.flo")


def safetensors_bytes() -> bytes:
    import io

    import torch

    from hmhi.models.publish import to_safetensors

    return to_safetensors(torch.load(io.BytesIO(checkpoint_bytes()), weights_only=True), torch.float16)


DOORS: dict[str, tuple[Callable[[Path], None], list[tuple[str, Callable[[], bytes]]]]] = {
    "picture": (read_picture, [(f"a.{form}", lambda form=form: picture(form=form)) for form in
                               ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")]),
    "mask": (read_mask, [("a.png", mask_picture), ("b.png", picture)]),
    "flow": (read_flow, [("a.flo", flow_bytes), ("a.png", picture)]),
    "archive": (read_archive, [("a.zip", lambda: made(pack("a.zip", {"0.png": picture(), "1.png": picture(1)}), "a.zip"))]),
    "video": (read_video, [("a.mp4", lambda: made(video("a.mp4"), "a.mp4"))]),
    "checkpoint": (read_checkpoint, [("a.pt", checkpoint_bytes), ("a.safetensors", safetensors_bytes)]),
}  # fmt: skip


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to eight wounds; half of them in the first kilobyte, where the headers are."""
    wounded = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if not wounded:
            break
        end = min(len(wounded), 1024) if rng.random() < 0.5 else len(wounded)
        at = rng.randrange(end)
        how = rng.randrange(5)
        if how == 0:
            wounded[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            wounded[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"))
        elif how == 2:
            del wounded[at : at + rng.randint(1, 64)]
        elif how == 3:
            wounded[at:at] = rng.randbytes(rng.randint(1, 64))
        else:
            del wounded[at:]
    return bytes(wounded)


def main(door: str, first: int, count: int) -> int:
    read, samples = DOORS[door]
    contents = [(name, make()) for name, make in samples]
    got_through = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            rng = random.Random(seed)
            name, content = rng.choice(contents)
            path = Path(folder) / name
            path.write_bytes(mutate(content, rng))
            try:
                read(path)
            except (UserError, OSError):
                continue
            except Exception:
                got_through += 1
                print(f"seed {seed}, {name}:", flush=True)
                traceback.print_exc(limit=-3, file=sys.stdout)
    return min(got_through, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
