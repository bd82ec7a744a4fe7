"""Writing synthetic videos as a data set on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.provenance import FORMAT, MANIFEST, UNKNOWN, computed_record, read_record
from hmhi.media.atomic import write_atomically
from hmhi.synthetic.clip import check_request, render_clip


def write_dataset(
    root: str | Path, name: str, split: str, videos: int, frames: int, size: tuple[int, int], seed: int,
    flow: str = "exact",
) -> Path:  # fmt: skip
    """Render videos into ``<root>/<name>/{Images,Annotations,Flows}/<split>/<video>/<stem>.{jpg,png}``.

    Images are JPEG, annotations are greyscale PNG with 0 and 255, flow is PNG on the colour wheel, with a
    manifest of how it was made (`hmhi.flow.provenance`). Every file appears whole or not at all, and a video
    whose files are all there is not rendered again, so that an interrupted call can be repeated.

    Args:
        root: Folder that holds the data sets.
        name: Folder of this one.
        split: ``train`` or ``val``.
        videos: Number of videos, called ``scene_00000`` and so on.
        frames: Frames of each video.
        size: Height and width in pixels.
        seed: Video i shows the world of seed + i.
        flow: As for `render_clip`.

    Returns:
        The folder of the data set.

    Raises:
        UserError: An argument is out of range, or the split holds videos with another kind of flow.
    """
    if videos < 1:
        raise UserError(f"need at least 1 video, got videos={videos}")
    check_request(seed, frames, size, flow)
    folder = Path(root) / name
    _write_manifest(folder / "Flows" / split, flow)
    for index in range(videos):
        video = f"scene_{seed + index:05d}"
        paths = [
            {
                "Images": folder / "Images" / split / video / f"{frame:05d}.jpg",
                "Annotations": folder / "Annotations" / split / video / f"{frame:05d}.png",
                "Flows": folder / "Flows" / split / video / f"{frame:05d}.png",
            }
            for frame in range(frames)
        ]
        if all(path.is_file() for frame in paths for path in frame.values()):
            continue
        clip = render_clip(seed + index, frames, size, flow)
        for frame, files in enumerate(paths):
            _save(files["Images"], clip.images[frame], "JPEG", quality=95, subsampling=0)
            _save(files["Annotations"], clip.masks[frame] * np.uint8(255), "PNG")
            _save(files["Flows"], flow_to_rgb(clip.flows[frame]), "PNG")
    return folder


def _write_manifest(flows: Path, flow: str) -> None:
    before = read_record(flows)["method"]
    if before == flow:
        return
    if before != UNKNOWN:
        raise UserError(f"{flows} holds {before} flow; choose another output folder for {flow} flow")
    # The last frame's flow leads to a frame that is rendered but not written.
    record = {"format": FORMAT, **computed_record(flow, last="forward")}
    with write_atomically(flows / MANIFEST) as stream:
        stream.write((json.dumps(record, indent=2) + "\n").encode())


def _save(path: Path, picture: np.ndarray, kind: str, **options: int) -> None:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, kind, **options)
    with write_atomically(path) as stream:
        stream.write(encoded.getvalue())
