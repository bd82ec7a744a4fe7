"""COCO instances for single images, and YouTube-VIS for whole videos; masks are run-length codes in both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmhi.exports.objects import bounding_box, masks_of
from hmhi.exports.run import LabelVideo
from hmhi.media.rle import MaskTrack, encode_mask


def write_coco(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``annotations/instances_default.json``: each frame an image, each object in it an annotation.

    Annotations carry ``attributes.track_id``, the object's id in its video, by which CVAT joins them into tracks.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video in videos:
        for stem, labels in video:
            height, width = labels.shape
            name = f"{video.name}/{video.image_name(stem)}"
            images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
            for number, mask in masks_of(labels):
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": len(images), "category_id": 1,
                        "segmentation": encode_mask(mask), "area": int(mask.sum()), "bbox": bounding_box(mask),
                        "iscrowd": 0, "attributes": {"track_id": number},
                    }
                )  # fmt: skip
    document = {"images": images, "categories": [{"id": 1, "name": category}], "annotations": annotations}
    _write(folder / "annotations" / "instances_default.json", document)


def write_youtube_vis(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``instances.json``: one annotation an object, with a code, box and area for each frame of its video."""
    merged: dict[str, Any] = {
        "videos": [], "categories": [{"id": 1, "name": category}], "annotations": []
    }  # fmt: skip
    for number, video in enumerate(videos, start=1):
        track = MaskTrack(video.name)
        size: dict[str, int] = {}
        for stem, labels in video:
            track.add(dict(masks_of(labels)), stem)
            size = {"height": labels.shape[0], "width": labels.shape[1]}
        document = track.document()
        files = [f"{video.name}/{video.image_name(path.stem)}" for path in video.masks]
        merged["videos"].append({**document["videos"][0], **size, "id": number, "file_names": files})
        for annotation in document["annotations"]:
            merged["annotations"].append(
                {**annotation, "id": len(merged["annotations"]) + 1, "video_id": number}
            )
    _write(folder / "instances.json", merged)


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
