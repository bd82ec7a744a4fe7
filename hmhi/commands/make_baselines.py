"""Write the masks of two trivial methods, which a trained network has to beat.

python tools/make_baselines.py --flow data/Sample/Flows/val --output outputs/baselines

all-foreground/  everything is the object
flow/            what moves: Otsu's threshold on the magnitude of the flow (--compensation takes the camera out)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmhi.commands.errors import report_errors
from hmhi.flow.baseline import threshold_flow
from hmhi.flow.compensate import COMPENSATIONS
from hmhi.inference.inputs import find_videos
from hmhi.media.masks import write_labels
from hmhi.media.pictures import read_rgb


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write the masks of two trivial methods.")
    parser.add_argument("--flow", type=Path, required=True, help="folder of sequences of flow maps")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--compensation", default="none", choices=COMPENSATIONS)
    args = parser.parse_args(arguments)
    for video in find_videos(args.flow):
        for path in video.frames:
            picture = read_rgb(path)
            masks = {
                "all-foreground": np.ones(picture.shape[:2], dtype=bool),
                "flow": threshold_flow(picture, args.compensation) > 0,
            }
            for method, mask in masks.items():
                write_labels(args.output / method / video.name / f"{path.stem}.png", mask)
    return 0
