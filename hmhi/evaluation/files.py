"""Trees of masks on disk: listing them, pairing predictions with annotations.

A tree is one folder for each sequence, which holds one image for each frame: ``<root>/<sequence>/<stem>.png``.
Pairs are made by name, never by sort order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hmhi.errors import UserError
from hmhi.evaluation.protocol import Protocol
from hmhi.media.files import read_text
from hmhi.media.names import printable
from hmhi.media.order import in_order

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".pgm"}
Tree = dict[str, dict[str, Path]]  # sequence -> stem -> file
Missing = Literal["error", "zero", "skip"]

HINT_MISSING = (
    "Score chosen sequences only with --sequences FILE, "
    "or missing predictions as zero or not at all with --missing zero|skip."
)
HINT_SPARSE = "Sets that annotate some frames only have protocols of their own, such as fbms and ytobj."
HINT_EXTRA = "Leave out predictions without annotation with --extra skip."


class EvaluationError(UserError):
    """A tree cannot be scored as asked; the message lists every reason that was found."""

    def __init__(self, pred: Path, problems: Sequence[str], hints: Iterable[str] = ()) -> None:
        self.problems = list(problems)
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        where = printable(str(pred))
        lines = [f"{count} in scoring {where}:", *(f"  - {printable(problem)}" for problem in problems)]
        super().__init__("\n".join([*lines, *dict.fromkeys(hints)]))


@dataclass(frozen=True)
class FramePair:
    """One frame to score; ``pred`` is None where a missing prediction counts as zero."""

    stem: str
    truth: Path
    pred: Path | None


@dataclass
class Pairs:
    """The frames to score, and what was left out."""

    frames: dict[str, list[FramePair]]
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of frames."""
    notes: list[str] = field(default_factory=list)


def pair_trees(
    pred: Path,
    truth: Path,
    protocol: Protocol,
    *,
    sequences: Sequence[str] | None = None,
    missing: Missing = "error",
    extra: Literal["error", "skip"] = "error",
    only: Mapping[str, Collection[str]] | None = None,
) -> Pairs:
    """Pair every annotated frame that the protocol counts with its prediction.

    Args:
        pred: Tree of predictions.
        truth: Tree of annotations.
        protocol: Which frames count.
        sequences: Names to score; None takes every annotated sequence.
        missing: What a missing prediction is: an error, a frame of score zero, or left out.
        extra: What a prediction without annotation is: an error, or left out. A sparse protocol expects it.
        only: Sequence -> frames in which anything is scored; None for all that the protocol counts.

    Raises:
        FileNotFoundError: A root does not exist.
        EvaluationError: Missing or extra sequences or frames, all of them listed.
    """
    annotated, problems = list_tree(truth, "annotations")
    predicted, pred_problems = list_tree(pred, "predictions")
    problems += pred_problems
    pairs = Pairs(frames={})
    wanted = list(dict.fromkeys(sequences)) if sequences is not None else sorted(annotated)
    problems += [
        f"annotations have no sequence {name!r} ({truth})" for name in wanted if name not in annotated
    ]
    hints: list[str] = []
    unlisted = [name for name in predicted if name not in wanted]
    if sequences is not None or extra == "skip":
        pairs.left_out["of sequences that are not scored"] += sum(len(predicted[name]) for name in unlisted)
    else:
        problems += [f"predictions hold sequence {name!r}, which has no annotations" for name in unlisted]
        hints += [HINT_EXTRA] if unlisted else []

    for name in wanted:
        stems = annotated.get(name, {})
        order = in_order(stems)
        counted = protocol.counted(order)
        pairs.left_out["first and last of their sequence"] += len(order) - len(counted)
        if only is not None:
            scored = [stem for stem in counted if stem in only.get(name, ())]
            pairs.left_out["in which no object is scored"] += len(counted) - len(scored)
            counted = scored
        if order and not counted:
            problems.append(
                f"{name}: {len(order)} annotated frames leave none to score under {protocol.name}"
            )
        found = predicted.get(name, {})
        surplus = in_order(set(found) - set(stems))
        if surplus and not protocol.sparse and extra == "error" and stems:
            problems.append(f"{name}: predictions without annotation: {', '.join(surplus)}")
            hints += [HINT_SPARSE, HINT_EXTRA]
        pairs.left_out["without annotation"] += len(surplus) if stems else 0

        lacking = [stem for stem in counted if stem not in found]
        if lacking and missing == "error":
            hints.append(HINT_MISSING)
            problems.append(_describe_missing(name, lacking, counted, found))
        elif lacking and missing == "skip":
            pairs.left_out["missing predictions"] += len(lacking)
        if lacking and missing != "error":
            done = "scored as zero" if missing == "zero" else "left out"
            pairs.notes.append(f"{done}: {_describe_missing(name, lacking, counted, found)}")
        kept = [stem for stem in counted if missing != "skip" or stem in found]
        if kept:
            pairs.frames[name] = [FramePair(stem, stems[stem], found.get(stem)) for stem in kept]

    if not problems and not pairs.frames:
        problems.append(f"no frame of {pred} has an annotation in {truth}")
    if problems:
        raise EvaluationError(pred, problems, hints)
    pairs.left_out = +pairs.left_out
    return pairs


def list_tree(root: Path, what: str) -> tuple[Tree, list[str]]:
    """List the sequences and frames below a root, and what is odd about them.

    Hidden files are ignored. A folder without images is reported, not passed over.

    Raises:
        FileNotFoundError: The root is not a folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"folder of {what} not found: {root}")
    tree: Tree = {}
    problems: list[str] = []
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        frames: dict[str, Path] = {}
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for path in inside:
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if path.stem in frames:
                problems.append(f"{what}: two files for one frame: {frames[path.stem]} and {path.name}")
            frames[path.stem] = path
        others = [path.name for path in inside if path.is_file() and path.suffix.lower() not in SUFFIXES]
        if others:
            problems.append(f"{what}: {folder.name} holds files that are no images: {', '.join(others)}")
        if frames:
            tree[folder.name] = frames
        elif any(path.is_dir() for path in inside):
            problems.append(f"{what}: {folder} holds folders, no images; should the root be that folder?")
        else:
            problems.append(f"{what}: {folder} holds no images")
    if not folders:
        problems.append(f"{what}: {root} has no folder for each sequence (<root>/<sequence>/<frame>.png)")
    return tree, problems


def read_sequence_list(path: Path) -> list[str]:
    """Names of sequences, one a line; DAVIS's own lists of frame files are understood too.

    Raises:
        FileNotFoundError: No such file.
        UserError: The file is no text, or names no sequence.
    """
    if not path.is_file():
        raise FileNotFoundError(f"list of sequences not found: {path}")
    names = []
    for line in read_text(path).splitlines():
        entry = line.split("#")[0].strip()
        if not entry:
            continue
        first = Path(entry.split()[0])
        names.append(first.parent.name if first.suffix.lower() in SUFFIXES else entry)
    if not names:
        raise UserError(f"{path} names no sequence; write one name on each line")
    return list(dict.fromkeys(names))


def _describe_missing(name: str, lacking: Sequence[str], counted: Sequence[str], found: Iterable[str]) -> str:
    if not found:
        return f"{name}: no predictions (sequence missing)"
    text = f"{name}: {len(lacking)} of {len(counted)} predictions missing: {', '.join(lacking)}"
    if len(lacking) == len(counted):
        text += f" (predictions are called {min(found)!r} and so on)"
    return text
