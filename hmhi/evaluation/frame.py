"""Score one frame: read its two files, make them comparable, apply the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hmhi.errors import BadFileError, UserError
from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.files import FramePair
from hmhi.evaluation.protocol import MapProtocol, MaskProtocol
from hmhi.evaluation.region import jaccard
from hmhi.evaluation.saliency import Saliency, score_map
from hmhi.media.masks import VOID, read_levels

Resize = Literal["none", "nearest", "bilinear"]
Levels = NDArray[np.uint8]

MANY_LEVELS = 32  # no data set merges more objects than this; compressed masks hold more levels


@dataclass(frozen=True)
class MaskScore:
    """J and F of one frame, and what makes its files suspicious."""

    j: float
    f: float
    inverted_j: float
    """J of the inverted prediction."""
    soft: bool = False
    """The prediction holds grey levels where a binary mask is due."""
    lost: bool = False
    """The prediction holds a few grey levels above 0, none of which passes the threshold."""
    empty_truth: bool = False
    soft_truth: bool = False
    """The annotation holds too many levels to be object ids."""


@dataclass(frozen=True)
class MapScore:
    """Every measure of one frame, and whether its map holds two levels only."""

    saliency: Saliency
    binary: bool = False


def score_mask_files(frame: FramePair, protocol: MaskProtocol, resize: Resize) -> MaskScore:
    """Read one prediction and its annotation, and score J and F.

    Raises:
        UserError: A file cannot be read as a mask, or the sizes differ.
    """
    truth_levels, _ = _read(frame.truth, "annotation")
    truth = truth_levels > 0
    empty_truth, soft_truth = not truth.any(), len(_present(truth_levels)) > MANY_LEVELS
    if frame.pred is None:
        return MaskScore(j=0.0, f=0.0, inverted_j=0.0, empty_truth=empty_truth, soft_truth=soft_truth)
    levels, is_index = _read(frame.pred, "prediction")
    present = _present(levels)
    if is_index or present[-1] <= 1:
        levels, present = (levels > 0) * np.uint8(255), np.array([0, 255])
    soft = bool(((present > 0) & (present < 255)).any())
    levels = match_size(levels, truth.shape, protocol.resize if protocol.resize != "none" else resize)
    if soft and protocol.stretch:
        levels = _stretched(levels)
    mask = levels > protocol.threshold
    return MaskScore(
        j=jaccard(mask, truth),
        f=f_measure(mask, truth),
        inverted_j=jaccard(~mask, truth),
        soft=soft,
        lost=soft and len(present) <= 4 and not mask.any(),
        empty_truth=empty_truth,
        soft_truth=soft_truth,
    )


def score_map_files(frame: FramePair, protocol: MapProtocol, resize: Resize) -> MapScore:
    """Read one soft map and its annotation, and score every measure.

    Raises:
        UserError: A file cannot be read as a map or mask, or the sizes differ.
    """
    truth_levels, is_index = _read(frame.truth, "annotation")
    truth = truth_levels > (0 if is_index or truth_levels.max() <= 1 else 128)
    if frame.pred is None:
        nothing = np.zeros(256)
        return MapScore(Saliency(1.0, 0.0, 0.0, 0.0, 0.0, nothing, nothing, nothing, nothing))
    levels, is_index = _read(frame.pred, "prediction")
    if is_index:
        levels = (levels > 0) * np.uint8(255)
    levels = match_size(levels, truth.shape, resize)
    return MapScore(
        score_map(levels, truth, stretch=protocol.stretch, definitions=protocol.definitions),
        binary=len(_present(levels)) <= 2,
    )


def read_merged(path: Path) -> tuple[Levels, bool]:
    """`hmhi.media.masks.read_levels`, with the undecided pixels of ids, which belong to no object, as background."""
    levels, is_index = read_levels(path)
    if is_index:
        levels[levels == VOID] = 0
    return levels, is_index


def _read(path: Path, what: str) -> tuple[Levels, bool]:
    try:
        return read_merged(path)
    except (BadFileError, OSError) as error:
        raise UserError(f"{what} {error}") from None


def _present(levels: Levels) -> NDArray[np.intp]:
    """The levels that occur, increasing."""
    return np.flatnonzero(cv2.calcHist([levels], [0], None, [256], [0, 256]))


def match_size(levels: Levels, shape: tuple[int, ...], resize: Resize) -> Levels:
    """A prediction at the size (H, W) of its annotation.

    Raises:
        UserError: They differ, and no resize is asked for.
    """
    if levels.shape == shape:
        return levels
    height, width = shape
    if resize == "none":
        raise UserError(
            f"prediction is {levels.shape[1]}x{levels.shape[0]} pixels (width x height), "
            f"annotation {width}x{height}; --resize nearest would fit it"
        )
    if resize == "nearest":
        return np.array(Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST))
    resized = cv2.resize(levels, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def _stretched(levels: Levels) -> Levels:
    """Min-max stretch, cut down to integers; a constant map becomes 0, as in the release's writer."""
    low, high = int(levels.min()), int(levels.max())
    return (255 * (levels.astype(np.intp) - low) // max(high - low, 1)).astype(np.uint8)
