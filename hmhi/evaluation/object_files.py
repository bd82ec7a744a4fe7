"""Score trees of object ids: which objects a sequence has, in which frames each counts, J and F of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmhi.errors import BadFileError, UserError
from hmhi.evaluation.files import FramePair, list_tree
from hmhi.evaluation.frame import Resize, match_size
from hmhi.evaluation.objects import Floats, score_objects, split_labels
from hmhi.evaluation.protocol import ObjectProtocol
from hmhi.evaluation.summary import FrameScore, SequenceScore, mean_recall_decay
from hmhi.media.files import read_text
from hmhi.media.masks import VOID, read_labels
from hmhi.media.order import in_order


@dataclass(frozen=True)
class ObjectPlan:
    """Which objects are scored in which frames."""

    objects: dict[str, dict[int, set[str]]]
    """Sequence -> object -> stems of the frames in which it is scored."""
    categories: dict[str, str]
    """``video/id`` -> category; empty where none is known."""
    seen: set[str] | None
    """Categories of the training videos; None where they were not named."""

    @property
    def frames(self) -> dict[str, set[str]]:
        """Sequence -> stems in which anything is scored."""
        return {name: set().union(*objects.values()) for name, objects in self.objects.items()}


@dataclass(frozen=True)
class Meta:
    """What YouTube-VOS's ``meta.json`` says: videos -> objects -> category and frames."""

    frames: dict[str, dict[int, list[str]]]
    categories: dict[str, str]
    """``video/id`` -> category."""


def read_meta(path: Path) -> Meta:
    """Read a ``meta.json``.

    Raises:
        FileNotFoundError: No such file.
        UserError: It has another form.
    """
    try:
        videos = json.loads(read_text(path))["videos"]
        frames = {
            name: {
                int(key): [str(stem) for stem in entry["frames"]] for key, entry in video["objects"].items()
            }
            for name, video in videos.items()
        }
        categories = {
            f"{name}/{int(key)}": str(entry["category"])
            for name, video in videos.items()
            for key, entry in video["objects"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no meta.json of YouTube-VOS ({type(error).__name__}: {error})") from None
    return Meta(frames, categories)


def plan_objects(
    truth: Path,
    protocol: ObjectProtocol,
    *,
    sequences: Sequence[str] | None = None,
    meta: Path | None = None,
    seen: Path | None = None,
) -> ObjectPlan:
    """Which objects of a tree of annotations are scored in which frames.

    Args:
        truth: Tree of annotations.
        protocol: What its objects are.
        sequences: Names to score; None for all.
        meta: ``meta.json`` of the annotated videos.
        seen: ``meta.json`` of the training videos.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        UserError: An annotation cannot be read, or the protocol needs a ``meta.json`` and has none for a video.
    """
    if protocol.objects == "listed" and meta is None:
        raise UserError(f"protocol {protocol.name} needs --meta FILE, which lists the frames of each object")
    listed = Meta({}, {}) if meta is None else read_meta(meta)
    tree, _ = list_tree(truth, "annotations")  # what is odd about it, `pair_trees` reports
    return ObjectPlan(
        {
            name: _plan_sequence(name, stems, protocol, listed)
            for name, stems in tree.items()
            if sequences is None or name in sequences
        },
        listed.categories,
        None if seen is None else set(read_meta(seen).categories.values()),
    )


def _plan_sequence(
    name: str, stems: Mapping[str, Path], protocol: ObjectProtocol, meta: Meta
) -> dict[int, set[str]]:
    order = in_order(stems)
    if protocol.objects == "listed":
        if name not in meta.frames:
            raise UserError(f"--meta lists no video {name!r}; leave it out with --sequences FILE")
        # An object's list begins with the frame its mask is given at.
        return {key: set(listed[1:]) & set(order) for key, listed in meta.frames[name].items()}
    if protocol.objects == "first-frame":
        labels = _read(stems[order[0]], "annotation")
        largest = int(labels.max(initial=0, where=labels != VOID))
        return {key: set(protocol.counted(order)) for key in range(1, largest + 1)}
    plan: dict[int, set[str]] = {}
    for place, stem in enumerate(order):
        for key in np.unique(_read(stems[stem], "annotation")).tolist():
            if key not in (0, VOID) and key not in plan:
                plan[key] = set(order[place:])
    return plan


def score_object_files(frame: FramePair, objects: Mapping[int, set[str]], resize: Resize) -> Floats:
    """J and F of each object of a sequence in one frame; NaN for those that do not count in it.

    Undecided pixels of the annotation are background, as in the semi-supervised DAVIS task.

    Returns:
        (K, 2) float64, in the order of `objects`.

    Raises:
        UserError: A file cannot be read as object ids, the sizes differ, or the prediction has an id that the
            sequence has not: masks that were renumbered or turned to grey would score near 0 without a word.
    """
    counted = np.array([frame.stem in stems for stems in objects.values()])
    scores = np.full((len(objects), 2), np.nan)
    if frame.pred is None:
        scores[counted] = 0
        return scores
    truth, pred = _read(frame.truth, "annotation"), _read(frame.pred, "prediction")
    pred = match_size(pred, truth.shape, resize)
    strange = sorted(set(np.unique(pred).tolist()) - {0, VOID, *objects})
    if strange:
        raise UserError(
            f"prediction {frame.pred} holds id {', '.join(map(str, strange))}, but the sequence has the objects "
            f"{', '.join(map(str, objects))}; save the ids of the annotation as palette PNG"
        )
    ids = [key for key, here in zip(objects, counted, strict=True) if here]
    scores[counted] = score_objects(split_labels(pred, ids), split_labels(truth, ids))
    return scores


def summarise_objects(
    name: str, frames: Sequence[tuple[FramePair, Floats]], objects: Mapping[int, set[str]]
) -> tuple[dict[str, dict[str, float]], SequenceScore]:
    """Mean, recall and decay of J and F of each object over its frames, and their means over the sequence's objects.

    Returns:
        ``video/id`` -> scores, and the scores of the sequence.
    """
    stacked = np.stack([scores for _, scores in frames])  # (T, K, 2)
    rows: dict[str, dict[str, float]] = {}
    for column, key in enumerate(objects):
        mine = stacked[~np.isnan(stacked[:, column, 0]), column]  # (frames of the object, 2)
        if len(mine):
            rows[f"{name}/{key}"] = _statistics(mine)
    means = {key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))}
    kept = {
        frame.stem: FrameScore(
            {"J": float(np.nanmean(scores[:, 0])), "F": float(np.nanmean(scores[:, 1]))},
            frame.truth,
            frame.pred,
        )
        for frame, scores in frames
    }
    return rows, SequenceScore(means, kept)


def mean_over_objects(rows: Mapping[str, Mapping[str, float]], plan: ObjectPlan) -> dict[str, float]:
    """Means over all objects of all sequences alike, and J&F.

    Where the training's categories are known, also YouTube-VOS's means over objects of seen and of unseen ones,
    and G, the mean of those four (of two, where all are seen).
    """
    first = next(iter(rows.values()))
    metrics = {key: float(np.mean([row[key] for row in rows.values()])) for key in first}
    metrics["JF_mean"] = (metrics["J_mean"] + metrics["F_mean"]) / 2
    if plan.seen is None:
        return metrics
    groups: dict[str, list[Mapping[str, float]]] = {"seen": [], "unseen": []}
    for name, row in rows.items():
        groups["seen" if plan.categories.get(name) in plan.seen else "unseen"].append(row)
    means = {
        f"{measure}_{group}": float(np.mean([row[f"{measure}_mean"] for row in members]))
        for measure in ("J", "F")
        for group, members in groups.items()
        if members
    }
    return metrics | means | {"G": float(np.mean(list(means.values())))}


def _statistics(scores: Floats) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for column, measure in enumerate(("J", "F")):
        mean, recall, decay = mean_recall_decay(scores[:, column].tolist())
        metrics |= {f"{measure}_mean": mean, f"{measure}_recall": recall, f"{measure}_decay": decay}
    return metrics


def _read(path: Path, what: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        return read_labels(path)
    except (BadFileError, OSError) as error:
        raise UserError(f"{what} {error}") from None
