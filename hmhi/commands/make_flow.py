"""Compute the optical flow of frame folders: one map a frame, named like it.

python tools/make_flow.py --input data/DAVIS-16/Images/val --output data/DAVIS-16/Flows/val
torchrun --nproc-per-node 4 tools/make_flow.py --input FRAMES --output FLOWS --method gmflow
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.flow.compensate import COMPENSATIONS
from hmhi.flow.estimate import METHODS, build_estimator, find_weights
from hmhi.flow.make import FlowSettings, make_flow, plan, shard, write_manifest
from hmhi.media.atomic import file_sha256
from hmhi.media.packs import find_frames
from hmhi.media.pictures import read_rgb


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Compute the optical flow of frame folders.")
    parser.add_argument(
        "--input", type=Path, required=True, help="folder of frames, or of such folders, zip files or videos"
    )
    parser.add_argument("--output", type=Path, required=True, help="receives maps in the same subfolders")
    parser.add_argument("--method", choices=METHODS, default="dis")
    parser.add_argument("--direction", choices=("forward", "backward", "both"), default="forward")
    parser.add_argument(
        "--last", choices=("repeat", "backward", "none"), default="repeat",
        help="map of the frame without a neighbour: that of the frame beside it, flow the other way, or none",
    )  # fmt: skip
    parser.add_argument(
        "--compensation", choices=COMPENSATIONS, default="none", help="camera motion taken out"
    )
    parser.add_argument("--format", choices=("png", "jpg", "flo"), default="png")
    parser.add_argument(
        "--weights", type=Path, help="default: GMFlow's package, RAFT's file in torchvision's cache"
    )
    parser.add_argument("--device", help="of GMFlow and RAFT; default: the GPU when there is one")
    parser.add_argument(
        "--batch-size", type=int, help="maps that GMFlow and RAFT make at a time; default: 8 on a GPU, else 1"
    )
    args = parser.parse_args(arguments)
    run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    weights_name = weights_hash = None
    device = "cpu"
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if (found := find_weights(args.method, args.weights)) is not None:
        weights_name, weights_hash = found.name, file_sha256(found)
        device = args.device or _default_device(int(os.environ.get("LOCAL_RANK", 0)))
    settings = FlowSettings(
        args.method, weights_name, weights_hash, args.direction,
        "backward" if args.direction == "both" else args.last, args.compensation, args.format,
    )  # fmt: skip
    batch_size = args.batch_size or (1 if device == "cpu" else 8)
    sequences = find_frames(args.input)
    tasks = shard(plan(args.input, sequences, args.output, settings), rank, world_size)
    estimator = build_estimator(args.method, device, args.weights)
    write_manifest(args.output, settings)
    with tqdm(total=len(tasks), unit="map", disable=None if rank == 0 else True) as bar:
        made = make_flow(tasks, settings, estimator, read_rgb, bar.update, batch_size)
    print(f"{len(tasks)} maps in {args.output}, {len(tasks) - made} of them from an earlier run")


def _default_device(local_rank: int) -> str:
    """The GPU of a process on this machine, or the CPU where there is none."""
    import torch  # DIS need not wait for it to load

    return f"cuda:{local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
