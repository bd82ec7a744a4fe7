"""From scores of frames to scores of sequences and of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmhi.evaluation.protocol import MapProtocol, MaskProtocol, Protocol
from hmhi.evaluation.saliency import Saliency, f_curve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FrameScore:
    """What one frame scored, and where it came from (``pred`` is None for a missing file scored as zero)."""

    metrics: dict[str, float]
    truth: Path
    pred: Path | None


@dataclass(frozen=True)
class SequenceScore:
    """Scores of one sequence."""

    metrics: dict[str, float]
    frames: dict[str, FrameScore]
    curves: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Scores of one method on one data set; every score is a fraction, not a percentage."""

    protocol: Protocol
    pred: Path
    truth: Path
    metrics: dict[str, float]
    sequences: dict[str, SequenceScore]
    classes: dict[str, dict[str, float]]
    """Class -> mean J and F of its sequences; empty unless the protocol asks for it."""
    curves: dict[str, Floats]
    """Precision, recall, F and E against 256 thresholds; empty for masks."""
    left_out: dict[str, int]
    """Reason -> frames that were not scored."""
    notes: list[str]
    """What the reader should know about these numbers."""
    objects: dict[str, dict[str, float]] = field(default_factory=dict)
    """``video/id`` -> J and F of each object; empty unless the protocol scores objects."""

    @property
    def frames_scored(self) -> int:
        """Frames that the means are taken over."""
        return sum(len(sequence.frames) for sequence in self.sequences.values())


def mean_recall_decay(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, share above 0.5, and the mean of the first quarter less that of the last (CVPR 2016, section 5.2).

    Quarters share their border frames, as in the DAVIS toolkit. Unlike the toolkit, which keeps indices in 8
    bits, this holds for sequences of more than 256 frames.

    Args:
        values: J or F of each frame, in order.
    """
    scores = np.asarray(values, np.float64)
    edges = np.round(np.linspace(1, len(scores), 5) + 1e-10).astype(int) - 1
    first, last = scores[edges[0] : edges[1] + 1], scores[edges[3] : edges[4] + 1]
    return float(scores.mean()), float((scores > 0.5).mean()), float(first.mean() - last.mean())


def summarise_mask_sequence(frames: dict[str, FrameScore], protocol: MaskProtocol) -> SequenceScore:
    """Mean, recall and decay of J and F over one sequence."""
    metrics: dict[str, float] = {}
    for measure in ("J", "F"):
        values = [frame.metrics[measure] for frame in frames.values()]
        mean, recall, decay = mean_recall_decay(values)
        if protocol.trim_statistics and len(values) > 2:
            _, recall, decay = mean_recall_decay(values[1:-1])
        metrics |= {f"{measure}_mean": mean, f"{measure}_recall": recall, f"{measure}_decay": decay}
    return SequenceScore(metrics, frames)


def summarise_masks(sequences: Mapping[str, SequenceScore], protocol: MaskProtocol) -> dict[str, float]:
    """Means over sequences, and J&F."""
    metrics = _mean_of_metrics([sequence.metrics for sequence in sequences.values()])
    if protocol.round_means:
        metrics |= {name: round(metrics[name], 3) for name in ("J_mean", "F_mean")}
    return metrics | {"JF_mean": (metrics["J_mean"] + metrics["F_mean"]) / 2}


def summarise_classes(sequences: Mapping[str, SequenceScore]) -> dict[str, dict[str, float]]:
    """Mean J and F of the sequences of each class; ``aeroplane_0001`` belongs to ``aeroplane``."""
    members: dict[str, list[dict[str, float]]] = {}
    for name, sequence in sequences.items():
        letters = re.match(r"[^\W\d_]+", name)
        scores = {key: sequence.metrics[key] for key in ("J_mean", "F_mean")}
        members.setdefault(letters.group() if letters else name, []).append(scores)
    return {name: _mean_of_metrics(scores) for name, scores in sorted(members.items())}


def summarise_map_sequence(
    frames: dict[str, FrameScore], scores: Sequence[Saliency], protocol: MapProtocol
) -> SequenceScore:
    """Mean curves and scores over one sequence."""
    curves = {
        name: np.mean([getattr(score, name) for score in scores], axis=0)
        for name in ("precision", "recall", "f", "e")
    }
    means = _mean_of_metrics([frame.metrics for frame in frames.values()])
    return SequenceScore(_map_metrics(means, curves, protocol), frames, curves)


def summarise_maps(
    sequences: Mapping[str, SequenceScore], protocol: MapProtocol
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Scores and curves of the data set, averaged in the order that the protocol states."""
    parts = list(sequences.values())
    pooled = protocol.averaging == "curve-of-frames"
    weights = [len(part.frames) if pooled else 1 for part in parts]
    curves = {
        name: np.average([part.curves[name] for part in parts], axis=0, weights=weights)
        for name in parts[0].curves
    }
    means = {
        name: float(np.average([part.metrics[name] for part in parts], weights=weights))
        for name in parts[0].metrics
    }
    if protocol.averaging == "maxima-of-videos":
        return means, curves
    return _map_metrics(means, curves, protocol), curves


def _map_metrics(
    means: Mapping[str, float], curves: Mapping[str, Floats], protocol: MapProtocol
) -> dict[str, float]:
    f = curves["f"]
    if protocol.averaging == "f-of-mean-precision-recall":
        f = f_curve(curves["precision"], curves["recall"])
    return {
        "MAE": means["MAE"],
        "max_F": float(f.max()),
        "mean_F": float(f.mean()),
        "adp_F": means["adp_F"],
        "max_E": float(curves["e"].max()),
        "mean_E": float(curves["e"].mean()),
        "adp_E": means["adp_E"],
        "S": means["S"],
        "wF": means["wF"],
    }


def _mean_of_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
