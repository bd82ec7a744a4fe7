"""Masks that users paint: read with care, or made by GrabCut from a box."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hmhi.errors import UserError
from hmhi.media.masks import object_ids, read_labels

_GRAB_CUT_STEPS = 4
_one_at_a_time = threading.Lock()  # GrabCut takes a core for a moment


def check_painted(path: Path, size: tuple[int, int], objects: int) -> None:
    """Refuse a painted mask that cannot be used; `hmhi.media.masks.read_labels` has the rules.

    Args:
        path: A PNG. Its size is looked at before anything is decoded.
        size: (H, W) of the frame.
        objects: The largest id that it may hold.

    Raises:
        UserError: It is damaged, of another size, of foreign colours, empty, or holds too large an id.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            given = image.size
    except Exception:  # hostile bytes reach many error types inside Pillow's plugins
        raise UserError("the mask is no PNG that can be read") from None
    if given != size[::-1]:
        raise UserError(
            f"the mask is {given[0]} x {given[1]}, but the frame {size[1]} x {size[0]}; send it at that size"
        )
    try:
        ids = object_ids(read_labels(path))
    except UserError as error:
        raise UserError(str(error).replace(str(path), "the mask")) from None
    if not ids:
        raise UserError("the mask is empty; mark at least one object")
    if ids[-1] > objects:
        raise UserError(f"the mask has the id {ids[-1]}; objects are numbered from 1 to {objects}")


def cut_box(view: Path, box: tuple[int, int, int, int], size: tuple[int, int]) -> bytes:
    """The mask of what a box encloses, by GrabCut.

    It works on the page's small picture, so that its cost is bounded and nothing of the video is decoded here.

    Args:
        view: Picture of `hmhi.serve.work.view_picture`, the frame on top.
        box: Left, top, width and height in pixels of the frame.
        size: (H, W) of the frame.

    Returns:
        A PNG of the frame's size: 255 inside, 0 elsewhere.

    Raises:
        UserError: The box lies outside the frame, is too small, or encloses nothing that stands out.
    """
    with Image.open(view) as picture:
        pixels = np.array(picture.convert("RGB"))
    pixels = pixels[: pixels.shape[0] // 3]  # (h, w, 3), the frame
    (height, width), (rows, columns) = pixels.shape[:2], size
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[0] + box[2], columns), min(box[1] + box[3], rows)
    x, y = left * width // columns, top * height // rows
    w, h = right * width // columns - x, bottom * height // rows - y
    if w < 4 or h < 4:
        raise UserError("the box is too small or outside the frame; draw it around the object")
    marks = np.full((height, width), cv2.GC_BGD, np.uint8)
    marks[y : y + h, x : x + w] = cv2.GC_PR_FGD
    if (marks == cv2.GC_PR_FGD).all():
        raise UserError("the box covers the whole frame; leave some background around it")
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    with _one_at_a_time:
        cv2.setRNGSeed(0)  # the same box, the same mask
        cv2.grabCut(pixels, marks, None, background, foreground, _GRAB_CUT_STEPS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    inside = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not inside.any():
        raise UserError("nothing in the box stands out from the rest; draw it anew, or use the brush")
    levels = cv2.resize(inside.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_LINEAR)
    stream = io.BytesIO()
    Image.fromarray(np.where(levels > 127, 255, 0).astype(np.uint8)).save(stream, "png")
    return stream.getvalue()
