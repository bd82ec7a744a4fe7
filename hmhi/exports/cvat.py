"""CVAT for images 1.1: one XML file a video, masks as run-length codes within their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hmhi.exports.objects import bounding_box, masks_of
from hmhi.exports.run import LabelVideo


def write_cvat(videos: Sequence[LabelVideo], folder: Path, category: str) -> None:
    """Write ``<video>/annotations.xml``, to be uploaded to a task that holds the frames of that video.

    The attribute ``id`` of a mask is the object's id in its video.
    """
    for video in videos:
        root = ElementTree.Element("annotations")
        _text(root, "version", "1.1")
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        for tag, text in (("name", video.name), ("size", str(len(video.masks))), ("mode", "annotation")):
            _text(task, tag, text)
        label = ElementTree.SubElement(ElementTree.SubElement(task, "labels"), "label")
        _text(label, "name", category)
        attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
        for tag, text in (
            ("name", "id"), ("mutable", "False"), ("input_type", "number"), ("default_value", "1"),
            ("values", "1;255;1"),
        ):  # fmt: skip
            _text(attribute, tag, text)
        for index, (stem, labels) in enumerate(video):
            height, width = labels.shape
            image = ElementTree.SubElement(
                root, "image",
                {"id": str(index), "name": video.image_name(stem), "width": str(width), "height": str(height)},
            )  # fmt: skip
            for number, mask in masks_of(labels):
                image.append(_mask(number, mask, category))
        path = folder / video.name / "annotations.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _mask(number: int, mask: np.ndarray, category: str) -> ElementTree.Element:
    left, top, width, height = bounding_box(mask)
    inside = mask[top : top + height, left : left + width].ravel()
    # Runs of 0 and 1 by turns, row by row, a run of 0 (perhaps empty) first.
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    borders = [*([0] if inside[0] else []), 0, *changes.tolist(), inside.size]
    element = ElementTree.Element(
        "mask",
        {
            "label": category, "source": "auto", "occluded": "0", "z_order": "0",
            "rle": ", ".join(map(str, np.diff(borders).tolist())),
            "left": str(left), "top": str(top), "width": str(width), "height": str(height),
        },
    )  # fmt: skip
    ElementTree.SubElement(element, "attribute", {"name": "id"}).text = str(number)
    return element


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
