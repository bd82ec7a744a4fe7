"""Score a tree of predictions against a tree of annotations, in parallel over frames.

Threads, not processes: decoding, dilation and histograms all release the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.files import EvaluationError, Frame, Missing, Pairs, pair_trees, read_levels
from hmhi.evaluation.protocol import MapProtocol, MaskProtocol
from hmhi.evaluation.region import Mask, jaccard
from hmhi.evaluation.saliency import Saliency, score_map
from hmhi.evaluation.summary import (
    FrameScore,
    Result,
    SequenceScore,
    summarise_classes,
    summarise_map_sequence,
    summarise_maps,
    summarise_mask_sequence,
    summarise_masks,
)

Resize = Literal["none", "nearest"]
Score = TypeVar("Score")
Scores = dict[str, list[tuple[Frame, Score]]]  # sequence -> its frames in order


@dataclass(frozen=True)
class MaskScore:
    """J and F of one frame, and what makes its prediction suspicious."""

    j: float
    f: float
    inverted_j: float
    """J of the inverted prediction."""
    soft: bool = False
    """Grey levels where a binary mask is due."""
    lost: bool = False
    """A few grey levels above 0, none of which passes the threshold."""
    empty_truth: bool = False


@dataclass(frozen=True)
class MapScore:
    """Every measure of one frame, and whether its map holds two levels only."""

    saliency: Saliency
    binary: bool = False


def evaluate(
    pred: Path,
    truth: Path,
    protocol: MaskProtocol | MapProtocol,
    *,
    sequences: Sequence[str] | None = None,
    missing: Missing = "error",
    extra: Literal["error", "skip"] = "error",
    resize: Resize = "none",
    jobs: int | None = None,
    progress: bool = False,
) -> Result:
    """Score one method.

    Args:
        pred: Tree of predictions, ``<sequence>/<stem>.png``: masks or soft maps, as the protocol asks.
        truth: Tree of annotations with the same names.
        protocol: The rules, from `hmhi.evaluation.protocol`.
        sequences: Names to score; None takes every annotated sequence.
        missing: What a missing prediction is: an error, a frame with the worst score, or left out.
        extra: What a prediction without annotation is where the protocol expects none: an error, or left out.
        resize: What happens to a prediction of another size than its annotation: an error, or nearest.
        jobs: Threads; None takes one for each processor that this process may use.
        progress: Show a progress bar on stderr.

    Raises:
        FileNotFoundError: A root does not exist.
        EvaluationError: The trees cannot be scored as asked; all reasons are listed.
    """
    pairs = pair_trees(pred, truth, protocol, sequences=sequences, missing=missing, extra=extra)
    workers = jobs or available_processors()
    if isinstance(protocol, MaskProtocol):
        score_frame = partial(score_mask_files, protocol=protocol, resize=resize)
        mask_scores = _score_all(pred, pairs, score_frame, workers, progress)
        return _mask_result(pred, truth, protocol, pairs, mask_scores)
    map_scores = _score_all(
        pred, pairs, partial(score_map_files, protocol=protocol, resize=resize), workers, progress
    )
    return _map_result(pred, truth, protocol, pairs, map_scores)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_mask_files(frame: Frame, protocol: MaskProtocol, resize: Resize) -> MaskScore:
    """Read one prediction and its annotation, and score J and F.

    Raises:
        ValueError: A file cannot be read as a mask, or the sizes differ.
    """
    truth_levels, _ = _read(frame.truth, "annotation")
    truth = truth_levels > 0
    if frame.pred is None:
        return MaskScore(j=0.0, f=0.0, inverted_j=0.0, empty_truth=not truth.any())
    levels, is_index = _read(frame.pred, "prediction")
    levels = _match_size(levels, truth, "bilinear" if protocol.resize == "bilinear" else resize)
    present, soft = _present_levels(levels), False
    if is_index or present[-1] <= 1:
        mask = levels > 0
    else:
        soft = bool(((present > 0) & (present < 255)).any())
        mask = (
            _stretched(levels) > protocol.threshold
            if soft and protocol.stretch
            else levels > protocol.threshold
        )
    return MaskScore(
        j=jaccard(mask, truth),
        f=f_measure(mask, truth),
        inverted_j=jaccard(~mask, truth),
        soft=soft,
        lost=soft and len(present) <= 4 and not mask.any(),
        empty_truth=not truth.any(),
    )


def score_map_files(frame: Frame, protocol: MapProtocol, resize: Resize) -> MapScore:
    """Read one soft map and its annotation, and score every measure.

    Raises:
        ValueError: A file cannot be read as a map or mask, or the sizes differ.
    """
    truth_levels, is_index = _read(frame.truth, "annotation")
    truth = truth_levels > (0 if is_index or truth_levels.max() <= 1 else 128)
    if frame.pred is None:
        nothing = np.zeros(256)
        return MapScore(Saliency(1.0, 0.0, 0.0, 0.0, 0.0, nothing, nothing, nothing, nothing))
    levels, is_index = _read(frame.pred, "prediction")
    if is_index:
        levels = (levels > 0) * np.uint8(255)
    levels = _match_size(levels, truth, resize)
    return MapScore(
        score_map(levels, truth, stretch=protocol.stretch, definitions=protocol.definitions),
        binary=len(_present_levels(levels)) <= 2,
    )


def _read(path: Path, what: str) -> tuple[NDArray[np.uint8], bool]:
    try:
        return read_levels(path)
    except ValueError as error:
        raise ValueError(f"{what} {path}: {error}") from None


def _present_levels(levels: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.flatnonzero(cv2.calcHist([levels], [0], None, [256], [0, 256]))


def _match_size(levels: NDArray[np.uint8], truth: Mask, resize: str) -> NDArray[np.uint8]:
    if levels.shape == truth.shape:
        return levels
    height, width = truth.shape
    if resize == "none":
        raise ValueError(
            f"prediction is {levels.shape[1]}x{levels.shape[0]} pixels (width x height), "
            f"annotation {width}x{height}; --resize nearest would fit it"
        )
    if resize == "nearest":
        return np.array(Image.fromarray(levels).resize((width, height), Image.Resampling.NEAREST))
    resized = cv2.resize(levels, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def _stretched(levels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Min-max stretch to 0-255, cut down to integers; a constant map becomes 0, as in the release's writer."""
    low, high = int(levels.min()), int(levels.max())
    return 255 * (levels.astype(np.intp) - low) // max(high - low, 1)


def _score_all(
    pred: Path, pairs: Pairs, score_frame: Callable[[Frame], Score], jobs: int, progress: bool
) -> Scores[Score]:
    """Score every frame; all frames that cannot be scored are reported at once."""

    def attempt(task: tuple[str, Frame]) -> Score | str:
        name, frame = task
        try:
            return score_frame(frame)
        except ValueError as error:
            return f"{name}/{frame.stem}: {error}"

    tasks = [(name, frame) for name, frames in pairs.frames.items() for frame in frames]
    scores: Scores[Score] = {name: [] for name in pairs.frames}
    problems: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = tqdm(
            pool.map(attempt, tasks), total=len(tasks), unit="frame", disable=None if progress else True
        )
        for (name, frame), outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                scores[name].append((frame, outcome))
    if problems:
        raise EvaluationError(pred, problems)
    return scores


def _mask_result(
    pred: Path, truth: Path, protocol: MaskProtocol, pairs: Pairs, scores: Scores[MaskScore]
) -> Result:
    if protocol.skip_empty_truth:
        kept = {name: [item for item in items if not item[1].empty_truth] for name, items in scores.items()}
        before, after = (sum(map(len, items.values())) for items in (scores, kept))
        pairs.left_out["with an empty annotation"] += before - after
        scores = {name: items for name, items in kept.items() if items}
        if not scores:
            raise EvaluationError(pred, ["every annotated frame is empty"])
    sequences = {
        name: summarise_mask_sequence(
            {
                frame.stem: FrameScore({"J": score.j, "F": score.f}, frame.truth, frame.pred)
                for frame, score in items
            },
            protocol,
        )
        for name, items in scores.items()
    }
    flat = [score for items in scores.values() for _, score in items]
    return Result(
        protocol=protocol,
        pred=pred,
        truth=truth,
        metrics=summarise_masks(sequences, protocol),
        sequences=sequences,
        classes=summarise_classes(sequences) if protocol.by_class else {},
        curves={},
        left_out=dict(pairs.left_out),
        notes=[*pairs.notes, *_subset_note(protocol, sequences), *_mask_notes(flat, protocol)],
    )


def _map_result(
    pred: Path, truth: Path, protocol: MapProtocol, pairs: Pairs, scores: Scores[MapScore]
) -> Result:
    sequences = {}
    for name, items in scores.items():
        frames = {
            frame.stem: FrameScore(_frame_metrics(score.saliency), frame.truth, frame.pred)
            for frame, score in items
        }
        sequences[name] = summarise_map_sequence(frames, [score.saliency for _, score in items], protocol)
    metrics, curves = summarise_maps(sequences, protocol)
    flat = [score for items in scores.values() for _, score in items]
    return Result(
        protocol=protocol,
        pred=pred,
        truth=truth,
        metrics=metrics,
        sequences=sequences,
        classes={},
        curves=curves,
        left_out=dict(pairs.left_out),
        notes=[*pairs.notes, *_subset_note(protocol, sequences), *_map_notes(flat, metrics)],
    )


def _frame_metrics(score: Saliency) -> dict[str, float]:
    return {
        "MAE": score.mae, "S": score.s, "wF": score.weighted_f, "adp_F": score.adaptive_f,
        "adp_E": score.adaptive_e, "max_F": float(score.f.max()), "max_E": float(score.e.max()),
    }  # fmt: skip


def _subset_note(protocol: MaskProtocol | MapProtocol, sequences: dict[str, SequenceScore]) -> list[str]:
    if protocol.videos in (None, len(sequences)):
        return []
    return [f"{len(sequences)} sequences scored; the full {protocol.name} benchmark has {protocol.videos}"]


def _mask_notes(scores: Sequence[MaskScore], protocol: MaskProtocol) -> list[str]:
    notes = []
    soft, lost = sum(score.soft for score in scores), sum(score.lost for score in scores)
    if soft:
        how = "stretched, then cut" if protocol.stretch else "cut"
        notes.append(
            f"{soft} of {len(scores)} predictions hold grey levels: they were never thresholded. They are {how} "
            f"at > {protocol.threshold} here; a soft edge or another threshold changes J and F"
        )
    if lost:
        notes.append(
            f"{lost} predictions hold a few dark grey levels only and count as empty: palette masks that were "
            "converted to grey look like this; save object ids in a palette PNG, or 255 for foreground"
        )
    mean, inverted = (float(np.mean([getattr(s, name) for s in scores])) for name in ("j", "inverted_j"))
    if inverted > mean + 0.2:
        notes.append(
            f"the inverted predictions would score J {inverted:.3f}, not {mean:.3f}: are they inverted?"
        )
    return notes


def _map_notes(scores: Sequence[MapScore], metrics: dict[str, float]) -> list[str]:
    notes = []
    binary = sum(score.binary for score in scores)
    if binary > len(scores) / 2:
        notes.append(
            f"{binary} of {len(scores)} maps hold two levels at most: they were thresholded already, so the F "
            "and E curves are flat and the maxima are lower than those of soft maps"
        )
    if metrics["MAE"] > 0.5:
        notes.append(
            f"MAE is {metrics['MAE']:.3f}; inverted maps would have about {1 - metrics['MAE']:.3f}: "
            "are they inverted?"
        )
    return notes
