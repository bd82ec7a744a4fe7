"""The masks of a run in one zip file, as the servers of data sets take them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from hmhi.media.atomic import write_atomically
from hmhi.media.packs import MASK_SUFFIXES, list_files

YOUTUBE_VOS = ("ytvos18", "ytvos19")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same masks give the same file


def write_submission(folder: Path, names: Sequence[str], dataset: str | None) -> Path:
    """Pack ``masks/<video>/<frame>.png`` of some videos into ``masks.zip``.

    YouTube-VOS's server wants ``Annotations/<video>/<frame>.png``, that of DAVIS ``<video>/<frame>.png``, which all
    other data sets get, too.

    Args:
        folder: The folder of results.
        names: Of the videos.
        dataset: Name of the data set, if it is one.

    Returns:
        The file.
    """
    path = folder / "masks.zip"
    root = Path("Annotations") if dataset in YOUTUBE_VOS else Path()
    with write_atomically(path) as stream, zipfile.ZipFile(stream, "w") as bundle:
        for name in sorted(names):
            for mask in list_files(folder / "masks" / name, MASK_SUFFIXES):
                member = zipfile.ZipInfo((root / name / mask.name).as_posix(), EPOCH)
                bundle.writestr(member, mask.read_bytes())
    return path
