"""Score a tree of predictions against a tree of annotations, in parallel over frames.

Threads, not processes: decoding, dilation and histograms all release the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from tqdm import tqdm

from hmhi.errors import UserError
from hmhi.evaluation.files import EvaluationError, FramePair, Missing, Pairs, pair_trees
from hmhi.evaluation.frame import MapScore, MaskScore, Resize, score_map_files, score_mask_files
from hmhi.evaluation.object_files import (
    ObjectPlan,
    mean_over_objects,
    plan_objects,
    score_object_files,
    summarise_objects,
)
from hmhi.evaluation.objects import Floats
from hmhi.evaluation.protocol import (
    MAP_PROTOCOLS,
    MASK_PROTOCOLS,
    OBJECT_PROTOCOLS,
    MapProtocol,
    MaskProtocol,
    ObjectProtocol,
    Protocol,
    find_protocol,
)
from hmhi.evaluation.saliency import Saliency
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

AnyProtocol = MaskProtocol | MapProtocol | ObjectProtocol
Score = TypeVar("Score")
Scores = dict[str, list[tuple[FramePair, Score]]]  # sequence -> its frames in order


def evaluate(
    pred: Path | str,
    truth: Path | str,
    protocol: MaskProtocol | MapProtocol | ObjectProtocol | str,
    *,
    sequences: Sequence[str] | None = None,
    missing: Missing = "error",
    extra: Literal["error", "skip"] = "error",
    resize: Resize = "none",
    jobs: int | None = None,
    progress: bool = False,
    meta: Path | str | None = None,
    seen: Path | str | None = None,
) -> Result:
    """Score one method.

    Args:
        pred: Tree of predictions, ``<sequence>/<stem>.png``: masks or soft maps, as the protocol asks.
        truth: Tree of annotations with the same names.
        protocol: The rules, from `hmhi.evaluation.protocol`, or their name. A name that stands for masks and for
            maps, such as ``davis16``, means masks.
        sequences: Names to score; None takes every annotated sequence.
        missing: What a missing prediction is: an error, a frame with the worst score, or left out.
        extra: What a prediction without annotation is where the protocol expects none: an error, or left out.
        resize: What happens to a prediction of another size than its annotation: an error, or nearest.
        jobs: Threads; None takes one for each processor that this process may use.
        progress: Show a progress bar on stderr.
        meta: YouTube-VOS's ``meta.json`` of the annotated videos, for protocol ``ytvos``.
        seen: The ``meta.json`` of what the method was trained on, whose categories count as seen.

    Raises:
        FileNotFoundError: A root does not exist.
        EvaluationError: The trees cannot be scored as asked; all reasons are listed.
        UserError: No protocol has that name.
    """
    pred, truth = Path(pred), Path(truth)
    known: dict[str, AnyProtocol] = {**OBJECT_PROTOCOLS, **MAP_PROTOCOLS, **MASK_PROTOCOLS}
    rules = find_protocol(known, protocol, None, "") if isinstance(protocol, str) else protocol
    plan = None
    if isinstance(rules, ObjectProtocol):
        meta, seen = (None if path is None else Path(path) for path in (meta, seen))
        plan = plan_objects(truth, rules, sequences=sequences, meta=meta, seen=seen)
    only = None if plan is None else plan.frames
    pairs = pair_trees(pred, truth, rules, sequences=sequences, missing=missing, extra=extra, only=only)
    pool = (pred, pairs, jobs or available_processors(), progress)
    if isinstance(rules, MaskProtocol):
        mask_scores = _score_all(partial(score_mask_files, protocol=rules, resize=resize), *pool)
        return _mask_result(pred, truth, rules, pairs, mask_scores)
    if isinstance(rules, MapProtocol):
        map_scores = _score_all(partial(score_map_files, protocol=rules, resize=resize), *pool)
        return _map_result(pred, truth, rules, pairs, map_scores)
    assert plan is not None
    objects = {frame.truth: plan.objects[name] for name, frames in pairs.frames.items() for frame in frames}
    object_scores = _score_all(lambda frame: score_object_files(frame, objects[frame.truth], resize), *pool)
    return _object_result(pred, truth, rules, pairs, object_scores, plan)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _score_all(
    score_frame: Callable[[FramePair], Score], pred: Path, pairs: Pairs, jobs: int, progress: bool
) -> Scores[Score]:
    """Score every frame; all frames that cannot be scored are reported at once."""

    def attempt(task: tuple[str, FramePair]) -> Score | str:
        name, frame = task
        try:
            return score_frame(frame)
        except UserError as error:
            return f"{name}/{frame.stem}: {error}"

    tasks = [(name, frame) for name, frames in pairs.frames.items() for frame in frames]
    scores: Scores[Score] = {name: [] for name in pairs.frames}
    problems: list[str] = []
    pool = ThreadPoolExecutor(jobs)
    try:
        outcomes = pool.map(attempt, tasks)
        bar = tqdm(outcomes, total=len(tasks), unit="frame", disable=None if progress else True)
        for (name, frame), outcome in zip(tasks, bar, strict=True):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                scores[name].append((frame, outcome))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt ends now, not after every frame
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


def _object_result(
    pred: Path,
    truth: Path,
    protocol: ObjectProtocol,
    pairs: Pairs,
    scores: Scores[Floats],
    plan: ObjectPlan,
) -> Result:
    objects: dict[str, dict[str, float]] = {}
    sequences = {}
    for name, items in scores.items():
        rows, sequences[name] = summarise_objects(name, items, plan.objects[name])
        objects |= rows
    notes = [*pairs.notes, *_subset_note(protocol, sequences)]
    if plan.categories and plan.seen is None:
        notes.append("no --seen FILE: G and the means of seen and unseen categories are not computed")
    return Result(
        protocol=protocol,
        pred=pred,
        truth=truth,
        metrics=mean_over_objects(objects, plan),
        sequences=sequences,
        classes={},
        curves={},
        left_out=dict(pairs.left_out),
        notes=notes,
        objects=objects,
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


def _subset_note(protocol: Protocol, sequences: dict[str, SequenceScore]) -> list[str]:
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
    soft_truth = sum(score.soft_truth for score in scores)
    if soft_truth:
        notes.append(
            f"{soft_truth} of {len(scores)} annotations hold more levels than there are objects: they look "
            "compressed or interpolated, and every level above 0 counts as object"
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
