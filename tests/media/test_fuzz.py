"""Mutated files of every kind at every door: an error that names the file, or an array, and nothing else."""

import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from trees import encode, picture

from hmhi.data.prepare.archive import unpack
from hmhi.errors import BadFileError
from hmhi.flow.codec import write_flo
from hmhi.flow.files import read_flow_rgb
from hmhi.media.masks import read_labels, read_levels, read_mask, write_labels
from hmhi.media.packs import IMAGE_SUFFIXES, list_files
from hmhi.media.pictures import read_rgb, read_size

ROUNDS = 20  # tests/faults/test_doors.py has the long ones
READERS = (read_rgb, read_mask, read_labels, read_levels, read_size)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Up to a dozen changed bytes, headers and ends more often; a quarter is cut off as well."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 12)):
        places = (rng.randrange(len(damaged)), rng.randrange(min(80, len(damaged))))
        damaged[rng.choice((*places, -1 - places[1]))] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(damaged[: rng.randrange(1, len(damaged))] if rng.random() < 0.25 else damaged)


def packed(compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as bundle:
        for t in range(2):
            bundle.writestr(f"{t}.png", encode("PNG", picture(t)))
    return stream.getvalue()


def taped(mode: str) -> bytes:
    stream, content = io.BytesIO(), encode("PNG", picture(0))
    with tarfile.open(fileobj=stream, mode=mode) as tape:
        member = tarfile.TarInfo("a/0.png")
        member.size = len(content)
        tape.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def members(path: Path) -> list[Path]:
    """Everything in a pack, read."""
    for member in list_files(path, IMAGE_SUFFIXES):
        try:
            read_rgb(member)
        except BadFileError:
            continue
    return []


def test_mutated_files(tmp_path):
    write_labels(tmp_path / "seed.png", np.arange(40 * 64, dtype=np.uint8).reshape(40, 64) % 3)
    write_flo(tmp_path / "seed.flo", np.ones((9, 11, 2), np.float32))
    images = [encode(kind, picture(1)) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")]
    images += [
        (tmp_path / "seed.png").read_bytes(),
        encode("PNG", picture(1)[..., 0].astype(np.uint16) * 200),
    ]
    doors = [("image.png", content, READERS) for content in images]
    doors.append(("flow.flo", (tmp_path / "seed.flo").read_bytes(), (read_flow_rgb,)))

    def unpacked(path):
        unpack(path, tmp_path / "unpacked", lambda member: True)

    doors += [("pack.zip", packed(compression), (members, unpacked)) for compression in (0, 8, 12, 14)]
    doors += [
        (f"a.tar{suffix}", taped(f"w:{suffix[1:]}"), (unpacked,)) for suffix in ("", ".gz", ".bz2", ".xz")
    ]
    rng = random.Random(0)
    refused = 0
    for _ in range(ROUNDS):
        for name, content, readers in doors:
            path = tmp_path / name
            path.write_bytes(mutated(content, rng))
            for read in readers:
                try:
                    read(path)
                except BadFileError as error:
                    assert name in str(error) and "\n" not in str(error)
                    refused += 1
    assert refused > ROUNDS * len(doors) / 4
