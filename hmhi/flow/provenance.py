"""How flow maps were made, to notice when a network reads other ones than it was trained on.

A record has the keys of `KEYS`, all strings; a value that nobody wrote down is `UNKNOWN`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hmhi.errors import UserError
from hmhi.media.files import read_text

MANIFEST = "manifest.json"
FORMAT = "hmhi-flow-1"
NORMALISED = "by the largest magnitude of each frame"
UNKNOWN = "unknown"
MIXED = "mixed"
"""Method of synthetic videos that hold flow of several kinds, so that no other one is foreign to them."""
KEYS = ("method", "direction", "last", "normalisation", "compensation")
COMPARED = ("method", "direction", "compensation")
_LEVELS = 3  # a manifest covers the maps of its folder, of sequences in it, and of splits that hold sequences


def read_record(folder: Path) -> dict[str, str]:
    """The record of the maps in a folder, from the manifest in it or up to two folders above.

    Without a readable manifest of flow maps every value is unknown.
    """
    folder = folder.resolve()
    for place in (folder, *folder.parents)[:_LEVELS]:
        try:
            found = json.loads(read_text(place / MANIFEST))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("format") == FORMAT:  # data sets have manifests too
            return {key: str(found.get(key, UNKNOWN)) for key in KEYS}
    return dict.fromkeys(KEYS, UNKNOWN)


def computed_record(method: str, last: str = "repeat", join: str | None = None) -> dict[str, str]:
    """The record of flow that this project computes while it reads frames.

    Args:
        method: Name of the estimator, or kind of synthetic flow.
        last: What the last frame of a video has, where it has the forward direction only.
        join: Compensation with which both directions are joined (`hmhi.flow.compensate.join_directions`); None for
            the forward one. The kinds of synthetic flow that a renderer knows are forward all the same.
    """
    direction, compensation = "forward", "none"
    if join is not None and method == MIXED:
        direction = compensation = MIXED
    elif join is not None and method not in ("exact", "degraded"):
        direction, compensation, last = "both", join, "backward"
    return {
        "method": method, "direction": direction, "last": last, "normalisation": NORMALISED,
        "compensation": compensation,
    }  # fmt: skip


def flow_mismatch(trained: Mapping[str, Mapping[str, str]], used: Mapping[str, str]) -> str | None:
    """Say how flow differs in method, direction or compensation from what a network was trained on.

    Args:
        trained: Data set -> record of its training flow, as a checkpoint holds it.
        used: Record of the flow to read.

    Returns:
        Words such as ``"dis, forward instead of raft, forward (ytvos)"``; None where one of the training sets
        agrees, and where it is not known that none does.

    Raises:
        UserError: The checkpoint holds something else.
    """
    if not isinstance(trained, Mapping) or not all(
        isinstance(record, Mapping) for record in trained.values()
    ):
        raise UserError("the checkpoint's record of its training flow is damaged; use another checkpoint")
    if not trained or any(_may_agree(record, used) for record in trained.values()):
        return None
    sets = ", ".join(f"{_words(record)} ({name})" for name, record in trained.items())
    return f"{_words(used)} instead of {sets}"


def _may_agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    pairs = ({one.get(key, UNKNOWN), other.get(key, UNKNOWN)} for key in COMPARED)
    return all(len(pair) == 1 or pair & {UNKNOWN, MIXED} for pair in pairs)


def _words(record: Mapping[str, str]) -> str:
    method, direction, compensation = (record.get(key, UNKNOWN) for key in COMPARED)
    words = f"{method}, {direction}"
    return words if compensation in ("none", UNKNOWN) else f"{words}, {compensation} taken out"
