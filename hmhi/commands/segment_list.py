"""``hmhi segment --list``: a shard of a long list of videos, see docs/SCALING.md."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from hmhi.errors import UserError
from hmhi.inference.base import EMBEDDED, checkpoint_sha256
from hmhi.runtime.interrupt import StopSignal
from hmhi.scale.run import Network, segment_list
from hmhi.scale.shards import find_shard

# of the options of hmhi segment, those that mean something here
_ALLOWED = {
    "list", "output", "shard", "time_limit", "retry", "checkpoint", "device", "image_size", "short_side",
    "memory_frames", "precision", "compile", "graphs", "flow", "quality", "refine", "tta", "overrides",
}  # fmt: skip


def run_list(args: argparse.Namespace, defaults: dict[str, object]) -> int:
    """Work through a shard, and return the exit code: 0, 2 where a video failed, 128 + n after signal n.

    Args:
        args: Of ``hmhi segment``.
        defaults: Values of the options that are not given.

    Raises:
        UserError: An option that a list cannot have.
    """
    stray = [
        name for name, value in vars(args).items() if name not in _ALLOWED and value != defaults.get(name)
    ]
    if stray:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in stray)
        raise UserError(f"--list gives run-length codes and knows no {names}; see docs/SCALING.md")
    if args.time_limit is not None and not args.time_limit > 0:
        raise UserError(f"--time-limit must be positive, got {args.time_limit:g}")
    precision = [f"infer.precision={args.precision}"] if args.precision else []
    options: dict[str, Any] = {
        "flow": args.flow, "image_size": args.image_size, "short_side": args.short_side,
        "memory_frames": args.memory_frames, "compile": args.compile, "overrides": [*args.overrides, *precision],
        "quality": args.quality, "refine": args.refine, "tta": args.tta,
    }  # fmt: skip
    checkpoint = args.checkpoint or EMBEDDED
    settings = {"checkpoint_sha256": checkpoint_sha256(checkpoint), **options}
    options["graphs"] = args.graphs  # results do not depend on it
    shard = find_shard(args.shard, os.environ)
    with StopSignal() as stop:
        counts = segment_list(
            args.list, args.output, shard, Network(args.checkpoint, args.device or "auto", options), settings,
            time_limit=args.time_limit, retry=args.retry, stopped=lambda: stop.number != 0,
        )  # fmt: skip
    print(
        f"shard {shard}: {counts.done} videos ({counts.frames} frames) in {args.output}, {counts.failed} failed, "
        f"{counts.kept} from an earlier run"
    )
    if counts.stopped:
        print("stopped; finished videos are kept, and the same command continues", file=sys.stderr)
        return 128 + stop.number
    if counts.failed:
        status = args.output / "status" / f"{shard}.jsonl"
        print(f"error: {counts.failed} videos failed, see {status}; --retry does them anew", file=sys.stderr)
        return 2
    return 0
