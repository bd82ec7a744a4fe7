"""Write the masks of trivial methods, which a trained network has to beat.

python tools/make_baselines.py --flow data/Sample/Flows/val --output outputs/baselines

all-foreground/  everything is the object
flow/            what moves: Otsu's threshold on the magnitude of the flow (--compensation takes the camera out)

python tools/make_baselines.py --frames JPEGImages/480p --first-masks Annotations/480p --output outputs/baselines

copied/          the mask of the first frame, for all frames
followed/        the mask of the first frame, carried along by DIS flow from frame to frame
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.flow.baseline import follow_mask, threshold_flow
from hmhi.flow.compensate import COMPENSATIONS
from hmhi.flow.estimate import build_estimator
from hmhi.inference.inputs import InputVideo, find_videos
from hmhi.media.masks import read_mask, write_labels
from hmhi.media.pictures import read_rgb


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write the masks of trivial methods.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--flow", type=Path, help="folder of sequences of flow maps: find what moves")
    source.add_argument("--frames", type=Path, help="folder of sequences: follow a given mask")
    parser.add_argument("--first-masks", type=Path, help="with --frames: folder of sequences of masks")
    parser.add_argument("--sequences", nargs="*", default=(), help="only these")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--compensation", default="none", choices=COMPENSATIONS)
    args = parser.parse_args(arguments)
    if (args.frames is None) != (args.first_masks is None):
        parser.error("--frames and --first-masks belong together")
    for video in find_videos(args.flow or args.frames, names=args.sequences):
        if args.flow is not None:
            write_moving(video, args.output, args.compensation)
        else:
            write_followed(video, args.first_masks, args.output)
    return 0


def write_moving(video: InputVideo, output: Path, compensation: str) -> None:
    """Masks of a sequence of flow maps."""
    for path in video.frames:
        picture = read_rgb(path)
        masks = {
            "all-foreground": np.ones(picture.shape[:2], dtype=bool),
            "flow": threshold_flow(picture, compensation) > 0,
        }
        for method, mask in masks.items():
            write_labels(output / method / video.name / f"{path.stem}.png", mask)


def write_followed(video: InputVideo, masks: Path, output: Path) -> None:
    """Masks of a sequence of frames from the one of its first frame; all its objects count as one.

    Raises:
        UserError: Frame and mask differ in size.
    """
    given = masks / video.name / f"{video.frames[0].stem}.png"
    first = read_mask(given)  # (H, W)
    dis = build_estimator("dis")
    before, soft = read_rgb(video.frames[0]), first.astype(np.float32)
    if before.shape[:2] != first.shape:
        raise UserError(
            f"{given} is {first.shape[1]}x{first.shape[0]}, but {video.frames[0]} is another size"
        )
    for number, path in enumerate(video.frames):
        frame = read_rgb(path)
        if number > 0:
            soft = follow_mask(soft, dis(frame, before))
        for method, mask in (("copied", first > 0), ("followed", soft > 0.5)):
            write_labels(output / method / video.name / f"{path.stem}.png", mask)
        before = frame
