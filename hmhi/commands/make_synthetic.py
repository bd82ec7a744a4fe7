"""Write synthetic videos as a data set: images, masks and flow, no download.

python tools/make_synthetic.py --output data/Sample --split train --videos 200 --frames 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.synthetic import write_dataset


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write synthetic videos as a data set.")
    parser.add_argument(
        "--output", type=Path, required=True, help="the data set's folder, such as data/Sample"
    )
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--frames", type=int, default=4, help="of each video")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0, help="of the first video; the next ones count up")
    parser.add_argument("--flow", default="exact", choices=("exact", "degraded", "dis", "mixed"))
    args = parser.parse_args(arguments)
    folder = write_dataset(
        args.output.parent, args.output.name, args.split, args.videos, args.frames, tuple(args.size),
        args.seed, args.flow,
    )  # fmt: skip
    print(f"{args.videos} {args.split} videos of {args.frames} frames in {folder}")
    return 0
