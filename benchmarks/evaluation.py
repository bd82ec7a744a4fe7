"""How fast the metrics are, against the plain implementation in `benchmarks.reference_metrics`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import reference_metrics
from hmhi.commands.errors import report_errors
from hmhi.evaluation.boundary import f_measure
from hmhi.evaluation.files import pair_trees, read_sequence_list
from hmhi.evaluation.protocol import MAP_PROTOCOLS, MASK_PROTOCOLS, MapProtocol, MaskProtocol
from hmhi.evaluation.region import Mask, jaccard
from hmhi.evaluation.runner import available_processors, evaluate
from hmhi.evaluation.saliency import score_map
from hmhi.media.masks import read_levels

Pair = tuple[NDArray[np.uint8], Mask]
Rules = MaskProtocol | MapProtocol


@dataclass(frozen=True)
class Comparison:
    """Milliseconds for one frame, one thread, images already in memory."""

    measure: str
    frames: int
    ours_ms: float
    reference_ms: float
    largest_difference: float

    @property
    def speedup(self) -> float:
        """How many times faster than the reference."""
        return self.reference_ms / self.ours_ms


@dataclass(frozen=True)
class WholeTree:
    """Wall time of a whole evaluation, files read and report computed."""

    what: str
    frames: int
    threads: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its table to stdout."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if len({options.gt is None, options.pred is None, options.maps is None}) > 1:
        parser.error("--gt, --pred and --maps go together")
    comparisons, trees = run(options)
    print(format_table(comparisons, trees))
    if options.json is not None:
        rows = [asdict(row) | {"speedup": row.speedup} for row in comparisons]
        machine = {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__}
        values = {"metrics": rows, "trees": [asdict(row) for row in trees], "machine": machine}
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


def run(options: argparse.Namespace) -> tuple[list[Comparison], list[WholeTree]]:
    """Time the metrics on real trees where given, else on drawn pairs of 480 x 854 pixels."""
    sequences = read_sequence_list(options.sequences) if options.sequences else None
    rules: dict[str, Rules] = {"masks": MASK_PROTOCOLS["davis16"], "maps": MAP_PROTOCOLS["vsod"]}
    folders = {"masks": options.pred, "maps": options.maps}
    if options.gt is None:
        pairs = dict.fromkeys(rules, drawn_pairs(options.frames))
    else:
        pairs = {
            what: _sample(folders[what], options.gt, rules[what], sequences, options.frames) for what in rules
        }
    comparisons = [
        _compare("J and F", pairs["masks"], _our_j_and_f, _plain_j_and_f),
        _compare("F and E curves", pairs["maps"], _our_curves, reference_metrics.f_and_e_curves),
    ]
    if importlib.util.find_spec("py_sod_metrics"):
        comparisons.append(_compare("same, against PySODMetrics", pairs["maps"], _our_curves, _pysod_curves))
    if options.gt is None:
        return comparisons, []
    trees = [
        _time_tree("J and F", folders["masks"], options.gt, rules["masks"], sequences, options.jobs),
        _time_tree("MAE, F, E, S, wF", folders["maps"], options.gt, rules["maps"], sequences, options.jobs),
    ]
    return comparisons, trees


def format_table(comparisons: Sequence[Comparison], trees: Sequence[WholeTree]) -> str:
    """The figures in text."""
    lines = [f"{'measure':<42}{'frames':>7}{'ours ms':>10}{'plain ms':>10}{'speed-up':>10}{'difference':>12}"]
    for row in comparisons:
        lines.append(
            f"{row.measure:<42}{row.frames:>7}{row.ours_ms:>10.2f}{row.reference_ms:>10.2f}"
            f"{row.speedup:>9.1f}x{row.largest_difference:>12.1e}"
        )
    lines += [
        f"{tree.what}: {tree.frames} frames from disk in {tree.seconds:.1f} s on {tree.threads} threads"
        for tree in trees
    ]
    return "\n".join(lines)


def drawn_pairs(count: int) -> list[Pair]:
    """Soft maps and masks of a drifting ellipse, for a machine without data sets."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :854]
    pairs = []
    for index in range(count):
        distance = ((x - 250 - 5 * index % 300) / 160) ** 2 + ((y - 240) / 90) ** 2
        noise = cv2.GaussianBlur(rng.normal(size=(480, 854)), ksize=(0, 0), sigmaX=5)
        prob = 255 / (1 + np.exp(6 * (distance - 1 + 3 * noise)))
        pairs.append((prob.astype(np.uint8), distance < 1))
    return pairs


def _sample(pred: Path, truth: Path, rules: Rules, sequences: list[str] | None, count: int) -> list[Pair]:
    """Evenly spaced frames of a tree."""
    pairs = pair_trees(pred, truth, rules, sequences=sequences)
    frames = [frame for items in pairs.frames.values() for frame in items]
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)]
    return [
        (read_levels(frame.pred)[0], read_levels(frame.truth)[0] > 0)
        for frame in chosen
        if frame.pred is not None
    ]


def _our_j_and_f(prob: NDArray[np.uint8], truth: Mask) -> list[float]:
    return [jaccard(prob > 127, truth), f_measure(prob > 127, truth)]


def _plain_j_and_f(prob: NDArray[np.uint8], truth: Mask) -> list[float]:
    return [reference_metrics.jaccard(prob > 127, truth), reference_metrics.f_measure(prob > 127, truth)]


def _our_curves(prob: NDArray[np.uint8], truth: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores S, weighted F and MAE in passing: nobody takes the curves alone."""
    score = score_map(prob, truth)
    return score.f, score.e


def _pysod_curves(prob: NDArray[np.uint8], truth: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every measure that `score_map` takes, by PySODMetrics; its curves run from threshold 255 down."""
    import py_sod_metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces the successor of Fmeasure
        measures = [
            getattr(py_sod_metrics, name)()
            for name in ("Fmeasure", "Emeasure", "Smeasure", "MAE", "WeightedFmeasure")
        ]
    for measure in measures:
        measure.step(prob, truth * np.uint8(255))
    f, e = measures[0].get_results()["fm"]["curve"], measures[1].get_results()["em"]["curve"]
    return f[::-1], e[::-1]


def _compare(
    measure: str,
    pairs: Sequence[Pair],
    ours: Callable[[NDArray[np.uint8], Mask], object],
    reference: Callable[[NDArray[np.uint8], Mask], object],
) -> Comparison:
    corner = tuple(image[:64, :64].copy() for image in pairs[0])
    for function in (ours, reference):
        function(*corner)  # the first call builds caches and imports
    milliseconds, values = [], []
    for function in (ours, reference):
        start = time.perf_counter()
        values.append([np.asarray(function(*pair)) for pair in tqdm(pairs, desc=measure, disable=None)])
        milliseconds.append(1000 * (time.perf_counter() - start) / len(pairs))
    difference = max(float(np.abs(a - b).max()) for a, b in zip(*values, strict=True))
    return Comparison(measure, len(pairs), milliseconds[0], milliseconds[1], difference)


def _time_tree(
    what: str, pred: Path, truth: Path, rules: Rules, sequences: list[str] | None, jobs: int | None
) -> WholeTree:
    start = time.perf_counter()
    result = evaluate(pred, truth, rules, sequences=sequences, jobs=jobs, progress=True)
    return WholeTree(what, result.frames_scored, jobs or available_processors(), time.perf_counter() - start)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/benchmark.py eval", description=__doc__)
    parser.add_argument("--gt", type=Path, metavar="DIR", help="annotations (default: drawn pairs)")
    parser.add_argument("--pred", type=Path, metavar="DIR", help="binary masks for J and F; needs --gt")
    parser.add_argument(
        "--maps", type=Path, metavar="DIR", help="soft maps for the VSOD measures; needs --gt"
    )
    parser.add_argument("--sequences", type=Path, metavar="FILE", help="sequences to take, one name a line")
    parser.add_argument("--frames", type=int, default=24, help="frames timed against the plain code (24)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="threads of the whole-tree runs (all processors)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(report_errors(main)())
