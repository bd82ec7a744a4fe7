"""Segment the salient object of videos: masks, and on request soft maps and overlay videos.

python tools/infer.py --input my_frames --output outputs/mine --overlay
python tools/infer.py --input data/DAVIS-16/Images/val --flow data/DAVIS-16/Flows/val --output outputs/davis16
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from hmhi.engine.infer import VideoSegmenter, default_checkpoint
from hmhi.engine.video_io import ResultWriter, SourceVideo, find_videos, truth_folder, write_json

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Segment the salient object of videos.")
    parser.add_argument(
        "--input", type=Path, required=True, help="frame folder, sequence folder or video file"
    )
    parser.add_argument("--output", type=Path, required=True, help="receives masks/<sequence>/<stem>.png")
    parser.add_argument("--flow", type=Path, help="stored flow maps, laid out like the input; else computed")
    parser.add_argument("--checkpoint", type=Path, help="default: the newest best.pt under runs/")
    parser.add_argument("--sequences", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--save-prob", action="store_true", help="also 8-bit probabilities to prob/")
    parser.add_argument("--overlay", action="store_true", help="also overlay/<sequence>.mp4")
    parser.add_argument("--overwrite", action="store_true", help="do finished sequences anew")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as infer.precision=bf16")
    args = parser.parse_intermixed_args()
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    checkpoint = args.checkpoint or default_checkpoint(ROOT / "runs")
    videos = find_videos(args.input, args.flow, args.sequences)
    segmenter = VideoSegmenter(checkpoint, args.device, overrides=args.overrides)
    segmenter.warn_of_other_flow(args.flow)
    settings = {
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "flow": str(args.flow) if args.flow else segmenter.config.flow,
        "overrides": args.overrides,
    }
    check_record(args.output / "infer.json", settings, args.overwrite)
    truth = truth_folder(args.input)
    sources = {"input": str(args.input), "dataset": None, "gt": str(truth) if truth else None}
    write_json(args.output / "infer.json", sources | settings)

    kept = 0
    with tqdm(total=sum(len(video.frames) for video in videos), unit="frame", disable=None) as bar:
        for video in videos:
            bar.set_postfix_str(video.name)
            writer = ResultWriter(args.output, video, prob=args.save_prob, overlay=args.overlay)
            if writer.done and not args.overwrite:
                kept += 1
                bar.update(len(video.frames))
            else:
                segment(segmenter, video, writer, bar)
    print(f"{len(videos)} sequences in {args.output / 'masks'}, {kept} of them from an earlier run")


def check_record(record: Path, settings: dict[str, object], overwrite: bool) -> None:
    """Refuse to mix results of different settings in one folder."""
    if overwrite or not record.exists():
        return
    before = json.loads(record.read_text(encoding="utf-8"))
    changed = [key for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise ValueError(
            f"{record.parent} holds results made with another {', '.join(changed)}; choose another --output, "
            f"or redo them with --overwrite"
        )


def segment(segmenter: VideoSegmenter, video: SourceVideo, writer: ResultWriter, bar: tqdm) -> None:
    try:
        with writer:
            for result in segmenter.stream(video.read_frames(), video.read_flows()):
                writer.write(result)
                bar.update()
    except ValueError as error:
        raise ValueError(f"{video.name}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
