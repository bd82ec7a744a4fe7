"""The record of a run in its output folder: input, settings, what became of each video."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hmhi.errors import UserError
from hmhi.inference.inputs import VideoInputs
from hmhi.inference.kinds import read_video_record
from hmhi.inference.outputs import FAILURES, KINDS, PARTIAL, RECORDS, remove
from hmhi.media.atomic import write_json
from hmhi.media.files import read_text

RECORD = "infer.json"


def check_output(folder: Path, inputs: VideoInputs) -> None:
    """Refuse to write where the input lies.

    Raises:
        UserError: The folder lies in the input, or the input among its results.
    """
    try:
        place = folder.resolve()
    except RuntimeError:  # of Python 3.11 and 3.12; later ones fail where the folder is made
        raise UserError(f"--output {folder}: its symbolic links lead in a circle") from None
    for read in inputs.folders:
        if place == read.resolve() or read.resolve() in place.parents:
            raise UserError(f"--output {folder} lies inside the input {read}; choose a folder outside it")
    results = [place / kind for kind in (*KINDS, RECORDS, FAILURES, PARTIAL)]
    for video in inputs.videos:
        origin = Path(video.origin)
        if origin == place or any(result == origin or result in origin.parents for result in results):
            raise UserError(
                f"the input {origin} lies among the results in --output {folder}; choose another folder"
            )


def check_settings(folder: Path, settings: Mapping[str, Any], redone: Collection[str] = ()) -> None:
    """Refuse to mix results of different settings in one folder.

    Args:
        folder: The folder of results.
        settings: Those of this run.
        redone: Names of videos whose results this run begins anew. Where there are no others, any settings do.

    Raises:
        UserError: The folder's record names other settings, or is damaged.
    """
    record = folder / RECORD
    others = {path.stem for path in (folder / RECORDS).glob("*.json")} - set(redone)
    if not record.exists() or (redone and not others):
        return
    remedy = "choose another --output, or redo all its videos with --overwrite"
    try:
        before = dict(json.loads(read_text(record)))
    except (TypeError, ValueError):
        raise UserError(f"{record} is damaged, so nobody knows how its results were made; {remedy}") from None
    changed = [key for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise UserError(f"{folder} holds results made with another {', '.join(changed)}; {remedy}")


def write_record(folder: Path, header: Mapping[str, Any]) -> None:
    """Write ``infer.json``: a header, and what is known of each finished and each failed video in the folder.

    Args:
        folder: The folder of results.
        header: Where the input lies, and the settings.

    Raises:
        UserError: A video's record is damaged.
    """
    sequences = [read_video_record(path) for path in sorted((folder / RECORDS).glob("*.json"))]
    failed = [read_video_record(path) for path in sorted((folder / FAILURES).glob("*.json"))]
    write_json(folder / RECORD, {**header, "sequences": sequences, "failed": failed})
    for place in (folder / PARTIAL, folder / FAILURES):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def sweep(folder: Path) -> None:
    """Remove what runs that were killed left behind; for the one process that holds the folder."""
    remove(folder / PARTIAL)
