"""Segment the salient object of videos, or objects given by masks; docs/INFERENCE.md explains every option.

python tools/infer.py --input walk.mp4 --output outputs/walk --overlay
python tools/infer.py --model hmmn --input walk.mp4 --first-mask first.png --output outputs/walk
python tools/infer.py --input 'clips/*.mp4' --output outputs/clips --matte --coco --every 2
python tools/infer.py --input davis16 --output outputs/davis16
torchrun --standalone --nproc-per-node 4 tools/infer.py --input FRAMES --output outputs/mine
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import torch

from hmhi.commands.errors import report_errors
from hmhi.commands.segment_list import run_list
from hmhi.commands.segment_objects import add_mask_options, find_kind, find_videos_and_masks, mask_settings
from hmhi.config import Kind, load_config
from hmhi.errors import UserError
from hmhi.flow.estimate import METHODS
from hmhi.inference.base import BUNDLED, EMBEDDED_OBJECTS, checkpoint_sha256, find_device
from hmhi.inference.inputs import VideoInputs
from hmhi.inference.kinds import AttentionSettings
from hmhi.inference.mask_inputs import ONE_OBJECT
from hmhi.inference.objects import ObjectSegmenter
from hmhi.inference.outputs import KINDS, OutputSettings
from hmhi.inference.quality import QUALITIES, default_quality
from hmhi.inference.run_record import check_output, check_settings, sweep, write_record
from hmhi.inference.segment import Interrupted, Selection, segment_all
from hmhi.inference.segmenter import VideoSegmenter
from hmhi.inference.submission import write_submission
from hmhi.media.av_out import has_av, require_av
from hmhi.media.video_out import ffmpeg
from hmhi.runtime import distributed
from hmhi.runtime.allocator import keep_pages
from hmhi.runtime.distributed import Ranks, process_group
from hmhi.runtime.lock import hold_folder
from hmhi.version import __version__
from hmhi.viz.composite import Background

LOOK_AHEAD = 8  # frames that a GPU encodes in one batch; the masks are the same


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    args = parse_arguments(arguments, prog)
    keep_pages()
    if args.list is not None:
        return run_list(args, vars(parse_arguments(["--list", "", "--output", ""])))
    try:
        # The first rank to end may have to wait for the last one.
        with process_group(timeout=timedelta(days=7)) as ranks:
            return run(args, ranks)
    except Interrupted as stop:
        print(f"{stop}; finished videos are kept, and the same command continues", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("interrupted; finished videos are kept, and the same command continues", file=sys.stderr)
        return 130


def parse_arguments(arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog, description="Segment the salient object of videos, or objects given by masks."
    )
    videos = parser.add_mutually_exclusive_group(required=True)
    videos.add_argument(
        "--input", metavar="VIDEO",
        help="video file, frame folder, zip, folder of these, quoted glob pattern, camera:0, or data set (davis16)",
    )  # fmt: skip
    videos.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="a video a line, for very many; gives run-length codes alone",
    )
    parser.add_argument("--output", type=Path, required=True, help="receives masks/<video>/<frame>.png")
    parser.add_argument("--sequences", nargs="+", default=[], metavar="NAME", help="only these videos")

    shards = parser.add_argument_group("with --list (docs/SCALING.md)")
    shards.add_argument(
        "--shard", metavar="i/n", help="each n-th video from the i-th on; default: the scheduler's array job"
    )
    shards.add_argument("--time-limit", type=float, metavar="SECONDS", help="that a video may take")
    shards.add_argument("--retry", action="store_true", help="do videos anew that failed before")

    results = parser.add_argument_group("results, beside masks")
    results.add_argument(
        "--save-prob", action="store_true", help="8-bit probabilities, prob/<video>/<frame>.png"
    )
    results.add_argument("--overlay", action="store_true", help="overlay/<video>.mp4, with sound")
    results.add_argument("--matte", action="store_true", help="the object cut out, matte/<video>/<frame>.png")
    results.add_argument(
        "--alpha", choices=("mov", "webm"), action="append", default=[],
        help="video with transparency: ProRes 4444 (alpha_mov/<video>.mov) or VP9 (alpha_webm/<video>.webm)",
    )  # fmt: skip
    results.add_argument(
        "--background", metavar="COLOUR|IMAGE|blur", help="the object before this, composite/<video>.mp4"
    )
    results.add_argument(
        "--strip", action="store_true", help="a few frames in one picture, strip/<video>.png"
    )
    results.add_argument("--coco", action="store_true", help="run-length codes, coco/<video>.json")
    results.add_argument(
        "--zip", action="store_true", help="masks.zip, as the server of a data set takes them"
    )
    results.add_argument(
        "--attention", type=int, nargs=2, metavar=("X", "Y"),
        help="where this pixel reads in the memory, attention/<video>/<frame>_*.png",
    )  # fmt: skip
    results.add_argument("--attention-frame", type=int, metavar="N", help="of this frame; default: the last")

    add_mask_options(parser)
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "--start", metavar="N|SECONDSs", help="first frame: its number from 0, or such as 2.5s"
    )
    frames.add_argument("--end", metavar="N|SECONDSs", help="where to stop; that frame is left out")
    frames.add_argument("--every", type=int, default=1, metavar="N", help="each N-th frame only")
    frames.add_argument("--fps", type=float, default=24.0, help="rate of frames that are files; default 24")
    frames.add_argument("--scene-cuts", action="store_true", help="begin anew at scene cuts")

    network = parser.add_argument_group("network")
    network.add_argument("--checkpoint", type=Path, help="default: the small bundled network")
    network.add_argument(
        "--model",
        choices=get_args(Kind),
        help="the bundled network of this kind, or that of --checkpoint",
    )
    network.add_argument(
        "--flow", metavar="FOLDER|METHOD",
        help="stored flow maps, laid out like the input; 'stored' for those of the data set; or how to compute "
        f"flow: {', '.join(METHODS)}",
    )  # fmt: skip
    network.add_argument(
        "--quality", choices=QUALITIES,
        help="fast: DIS flow and no extras; best: GMFlow and flip as well as refined edges; default: best on a GPU",
    )  # fmt: skip
    network.add_argument(
        "--refine", choices=("none", "auto", "guided"),
        help="guided: masks follow the edges of the frame; default: auto, where that helps",
    )  # fmt: skip
    network.add_argument(
        "--tta",
        choices=("none", "flip"),
        help="flip: average with the mirrored video; twice the network's work",
    )
    network.add_argument(
        "--follow", nargs="?", type=Path, const=EMBEDDED_OBJECTS, metavar="CHECKPOINT",
        help="let a network that takes masks carry what is found: the bundled HMMN, or that of a checkpoint",
    )  # fmt: skip
    network.add_argument("--image-size", metavar="N|HxW", type=image_size, help="size of the network's input")
    network.add_argument("--short-side", type=int, metavar="N", help="instead: short side, aspect kept")
    network.add_argument("--memory-frames", type=int, metavar="T", help="frames that the memory holds")
    network.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="bf16 is faster on CPUs with AMX; docs/PERFORMANCE.md says what was measured",
    )
    network.add_argument(
        "--compile", action="store_true", help="torch.compile; slow to start, see docs/PERFORMANCE.md"
    )
    network.add_argument(
        "--graphs", action="store_true", help="run HMHI-Net as CUDA graphs; a CPU goes on as ever"
    )
    network.add_argument("--device", help="auto, cpu, cuda or cuda:0; default: the GPU when there is one")

    parser.add_argument("--overwrite", action="store_true", help="do finished videos anew")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as infer.threshold=0.6")
    args = parser.parse_intermixed_args(arguments)
    # argparse gives --sequences all that follows
    args.overrides += [name for name in args.sequences if "=" in name]
    args.sequences = [name for name in args.sequences if "=" not in name]
    return args


def image_size(text: str) -> list[int]:
    height, _, width = text.lower().partition("x")
    return [int(height), int(width or height)]


def run(args: argparse.Namespace, ranks: Ranks) -> int:
    with ExitStack() as lock:  # of the output, held by the first rank
        return segment_inputs(args, ranks, prepare(args, ranks, lock))


class Prepared(NamedTuple):
    """All that a run needs."""

    inputs: VideoInputs
    header: dict[str, object]
    """Of the run's record."""
    segmenter: VideoSegmenter | ObjectSegmenter
    follower: ObjectSegmenter | None
    """What carries that which the segmenter finds."""


def segment_inputs(args: argparse.Namespace, ranks: Ranks, prepared: Prepared) -> int:
    inputs, header, segmenter, follower = prepared
    kinds = [kind for kind in KINDS if wanted(args, kind)]
    attention = None
    if args.attention and isinstance(segmenter, VideoSegmenter):
        attention = AttentionSettings(segmenter, tuple(args.attention), args.attention_frame)
    background = Background(args.background) if args.background else None
    prompted = isinstance(segmenter, ObjectSegmenter)
    outputs = OutputSettings(
        args.output, kinds, segmenter.config.threshold, attention, background, by_id=prompted
    )
    drawn = args.overlay or args.background
    if drawn and ranks.is_main and ffmpeg() is None and not has_av() and any(v.file for v in inputs.videos):
        print(
            "note: without ffmpeg or the extra hmhi[video], mp4 files have no sound, and browsers do not play them",
            file=sys.stderr,
        )
    if ranks.is_main:
        sweep(args.output)
        write_record(args.output, header)
    try:
        done = segment_all(
            segmenter, inputs.videos, selection_of(args), outputs,
            ranks=ranks, overwrite=args.overwrite, follower=follower,
        )  # fmt: skip
    finally:
        if ranks.is_main:
            write_record(args.output, header)
    if not ranks.is_main:
        return 1 if done.bugs else 2 if done.failed else 0
    count = len(done.finished) + len(done.kept)
    print(f"{count} sequences in {args.output / 'masks'}, {len(done.kept)} of them from an earlier run")
    if done.failed:
        print(
            f"error: {len(done.failed)} of {len(inputs.videos)} failed: {', '.join(done.failed)}",
            file=sys.stderr,
        )
        if done.bugs:
            print(
                f"a bug in hmhi {__version__} stopped {', '.join(done.bugs)}; please report it",
                file=sys.stderr,
            )
        return 1 if done.bugs else 2
    if args.zip:
        names = [video.name for video in inputs.videos]
        print(f"all masks: {write_submission(args.output, names, inputs.dataset)}")
    if inputs.truth:
        tool = "val_svos.py" if prompted and inputs.dataset not in ONE_OBJECT else "val_zvos.py"
        print(f"score them: python tools/{tool} --pred {args.output / 'masks'} --gt {inputs.truth}")
    return 0


def wanted(args: argparse.Namespace, kind: str) -> bool:
    """Whether a kind of result is asked for."""
    if kind.startswith("alpha_"):
        return kind.removeprefix("alpha_") in args.alpha
    option = {"prob": "save_prob", "composite": "background"}.get(kind, kind)
    return kind == "masks" or bool(vars(args)[option])


def prepare(args: argparse.Namespace, ranks: Ranks, lock: ExitStack) -> Prepared:
    """Read the inputs and load the networks; what is wrong on one rank is an error of all."""
    problem = ""
    try:
        made = prepare_rank(args, ranks, lock)
    except (UserError, OSError) as error:
        problem = str(error) or repr(error)
    problems = [text for text in distributed.gather(problem) if text]
    if problems and not ranks.is_main:
        sys.exit(2)  # rank 0 says why
    if problems:
        raise UserError(problems[0])
    return made


def prepare_rank(args: argparse.Namespace, ranks: Ranks, lock: ExitStack) -> Prepared:
    selection_of(args)  # mistakes in the cheap options first
    if args.attention_frame is not None and not args.attention:
        raise UserError("--attention-frame needs --attention X Y, the pixel to look at")
    if args.attention and (args.compile or args.graphs):
        raise UserError("--attention cannot look into such a network; leave --compile and --graphs out")
    if args.alpha:
        require_av("--alpha")
    if args.background:
        Background(args.background)
    kind = find_kind(args)
    data_root = Path(load_config(None, [f"model.kind={kind}", *args.overrides]).data.root)
    inputs = find_videos_and_masks(args, kind, data_root)
    check_output(args.output, inputs)
    checkpoint = args.checkpoint or BUNDLED[kind]
    device = find_device(args.device or ranks.device)
    quality = args.quality or default_quality(device, inputs, args.flow)
    segmenter = build_segmenter(args, kind, device, inputs, quality)
    follower = None
    if args.follow:
        follower = ObjectSegmenter(args.follow, device, compile=args.compile, overrides=precision_of(args))
    header: dict[str, object] = {
        "input": args.input,
        "dataset": inputs.dataset,
        "gt": str(inputs.truth) if inputs.truth else None,
        "checkpoint": str(checkpoint),
    }
    settings: dict[str, object] = {
        "checkpoint_sha256": checkpoint_sha256(checkpoint),
        "flow": str(inputs.flow.resolve()) if inputs.flow else segmenter.config.flow,
        "follow_sha256": checkpoint_sha256(args.follow) if args.follow else None,
        "start": args.start,
        "end": args.end,
        "every": args.every,
        "fps": args.fps,
        "scene_cuts": args.scene_cuts,
        "image_size": args.image_size,
        "short_side": args.short_side,
        "memory_frames": args.memory_frames,
        "quality": quality,
        "refine": segmenter.config.refine,
        "tta": segmenter.config.tta,
        "precision": segmenter.config.precision,
        "attention": args.attention,
        "attention_frame": args.attention_frame,
        "background": args.background,
        "overrides": args.overrides,
    }
    if isinstance(segmenter, ObjectSegmenter):
        settings |= {"flow": None, "refine": None, "tta": None, **mask_settings(args)}
    if ranks.is_main:
        if isinstance(segmenter, VideoSegmenter) and (inputs.flow or args.flow or quality is None):
            segmenter.warn_of_other_flow(inputs.flow)
        lock.enter_context(hold_folder(args.output))
        redone = [video.name for video in inputs.videos] if args.overwrite else []
        check_settings(args.output, settings, redone)
    return Prepared(inputs, header | settings, segmenter, follower)


def build_segmenter(
    args: argparse.Namespace, kind: Kind, device: torch.device, inputs: VideoInputs, quality: str | None
) -> VideoSegmenter | ObjectSegmenter:
    overrides = [*args.overrides, *precision_of(args)]
    if kind != "hmhi":
        return ObjectSegmenter(
            args.checkpoint, device, short_side=args.short_side, compile=args.compile, overrides=overrides
        )
    flow = args.flow if args.flow in METHODS else None
    if inputs.flow and quality:
        flow = "dis"  # is not used; stored flow must not ask for GMFlow's weights
    batched = device.type == "cuda" and not any(video.live for video in inputs.videos)
    return VideoSegmenter(
        args.checkpoint,
        device,
        flow=flow,
        image_size=args.image_size,
        short_side=args.short_side,
        memory_frames=args.memory_frames,
        look_ahead=LOOK_AHEAD if batched else 1,
        quality=quality,
        refine=args.refine,
        tta=args.tta,
        compile=args.compile,
        graphs=args.graphs,
        overrides=overrides,
    )


def precision_of(args: argparse.Namespace) -> list[str]:
    return [f"infer.precision={args.precision}"] if args.precision else []


def selection_of(args: argparse.Namespace) -> Selection:
    return Selection(
        args.start, args.end, args.every, args.fps, args.scene_cuts, args.use_masks or "new",
        tuple(args.objects or ()),
    )  # fmt: skip
