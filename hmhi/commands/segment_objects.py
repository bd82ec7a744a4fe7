"""What ``hmhi segment`` does beyond the salient object: the options of masks, and which network they fit."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from hmhi.config import Kind
from hmhi.errors import UserError
from hmhi.inference.base import BUNDLED, NAMES
from hmhi.inference.inputs import VideoInputs, find_inputs
from hmhi.inference.mask_inputs import find_prompted
from hmhi.inference.prompts import MaskUse
from hmhi.models.weights import checkpoint_kind

MASK_OPTIONS = ("first_mask", "masks", "use_masks", "objects")
"""Options that only a network that takes masks can follow."""
SALIENT_OPTIONS = (
    "flow", "quality", "refine", "tta", "image_size", "memory_frames", "scene_cuts", "attention", "attention_frame",
    "graphs", "follow",
)  # fmt: skip
"""Options that only HMHI-Net can follow."""


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a network that follows given objects."""
    group = parser.add_argument_group(
        "objects given by masks",
        "for HMMN, and for STMA: our reading of a paper without code, nothing of it is reproduced",
    )
    group.add_argument(
        "--first-mask", type=Path, metavar="FILE", help="mask of the first frame, a picture of object ids"
    )
    group.add_argument(
        "--masks", type=Path, metavar="FOLDER",
        help="masks/<video>/<frame>.png, one or many for each video; default: those of the data set",
    )  # fmt: skip
    group.add_argument(
        "--use-masks", choices=get_args(MaskUse),
        help="of a folder: the first file alone; new objects only (default); or all, where later ones correct",
    )  # fmt: skip
    group.add_argument("--objects", type=int, nargs="+", metavar="ID", help="follow only these")


def find_kind(args: argparse.Namespace) -> Kind:
    """Which network runs.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        UserError: No such network is bundled, it is not that of the checkpoint, or an option does not fit.
    """
    kind: Kind
    if args.checkpoint is None:
        asked = any(vars(args)[name] is not None for name in MASK_OPTIONS)
        kind = args.model or ("hmmn" if asked else "hmhi")
    else:
        kind = checkpoint_kind(args.checkpoint)
    if kind not in BUNDLED and args.checkpoint is None:
        raise UserError(
            f"--model {kind}: no weights of {NAMES[kind]} are bundled; name them with --checkpoint FILE"
        )
    if args.model not in (None, kind):
        raise UserError(
            f"--model {args.model} is {NAMES[args.model]}, but {args.checkpoint} holds {NAMES[kind]}; leave one out"
        )
    strange = SALIENT_OPTIONS if kind != "hmhi" else MASK_OPTIONS
    given = [f"--{name.replace('_', '-')}" for name in strange if vars(args)[name] not in (None, False)]
    if given and kind == "hmhi":
        raise UserError(
            f"{given[0]} is for HMMN and STMA, which follow objects given by masks, and "
            f"{args.checkpoint or '--model hmhi'} is HMHI-Net, which finds the salient object by itself; leave one "
            f"of them out"
        )
    if given:
        raise UserError(
            f"{given[0]} is for HMHI-Net, and {args.checkpoint or 'the network here'} is {NAMES[kind]}, which "
            f"follows objects given by masks; leave it out"
        )
    return kind


def find_videos_and_masks(args: argparse.Namespace, kind: Kind, data_root: Path) -> VideoInputs:
    """The videos that a network of this kind segments, with what it reads beside them.

    Raises:
        FileNotFoundError: Nothing is there.
        UserError: Files do not match.
    """
    if kind == "hmhi":
        return find_inputs(args.input, args.flow, args.sequences, data_root)
    return find_prompted(args.input, args.sequences, data_root, first_mask=args.first_mask, masks=args.masks)


def mask_settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """What of the mask options changes results."""
    places = {
        name: None if vars(args)[name] is None else str(vars(args)[name].resolve())
        for name in ("first_mask", "masks")
    }
    return {**places, "use_masks": args.use_masks or "new", "objects": args.objects}
