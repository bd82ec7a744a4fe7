"""Write the masks of a run in the format of an annotation tool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmhi.errors import UserError
from hmhi.exports.coco import write_coco, write_youtube_vis
from hmhi.exports.cvat import write_cvat
from hmhi.exports.label_studio import write_label_studio
from hmhi.exports.mots import write_mots
from hmhi.exports.run import LabelVideo, find_label_videos
from hmhi.exports.yolo import write_yolo


@dataclass(frozen=True)
class Format:
    """How a format is written."""

    write: Callable[[Sequence[LabelVideo], Path, str], None]
    """Takes the videos, an empty folder, and the category's name."""
    images: str
    """Folder of a video's frames, ``{video}`` being its name."""


FORMATS = {
    "coco": Format(write_coco, "images/{video}"),
    "ytvis": Format(write_youtube_vis, "JPEGImages/{video}"),
    "cvat": Format(write_cvat, "{video}/images"),
    "yolo": Format(write_yolo, "images/train/{video}"),
    "mots": Format(write_mots, "{video}/images"),
    "labelstudio": Format(write_label_studio, "images/{video}"),
}


def export_run(
    run: Path, to: str, output: Path | None = None, *, category: str = "object", images: bool = False
) -> Path:
    """Write the masks of a run in another format, whole or not at all.

    Args:
        run: Folder that ``hmhi segment`` wrote.
        to: Of `FORMATS`.
        output: Folder to make; None is ``<run>/exports/<to>``, which is replaced.
        category: Name of the one class.
        images: Also put the frames where the format wants them.

    Returns:
        The folder.

    Raises:
        UserError: `category` is no name, there are no masks, `output` holds something, or frames are missing.
    """
    chosen = FORMATS[to]
    if not category.strip() or not category.isprintable():
        raise UserError(f"category must be a name, got {category!r}")
    if output is not None and output.exists() and (output.is_file() or any(output.iterdir())):
        raise UserError(f"{output} is not empty; choose another folder, or remove it")
    folder = output or run / "exports" / to
    videos = find_label_videos(run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        growing = Path(work) / "export"
        growing.mkdir()
        chosen.write(videos, growing, category)
        if images:
            for video in videos:
                video.write_images(growing / chosen.images.format(video=video.name))
        if folder.exists():
            shutil.rmtree(folder)
        growing.rename(folder)
    return folder
