r"""Draw one picture of results: image, flow, truth, prediction, overlay; a row for each sequence.

python tools/draw_strip.py --images data/Sample/Images/val --flows data/Sample/Flows/val \
    --gt data/Sample/Annotations/val --pred outputs/quickstart/masks --output outputs/quickstart/strip.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.flow.files import read_flow_rgb
from hmhi.inference.inputs import find_videos
from hmhi.media.atomic import write_atomically
from hmhi.media.masks import read_mask
from hmhi.media.pictures import read_rgb
from hmhi.viz.overlay import draw_overlay, draw_strip


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Draw image | flow | truth | prediction.")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--flows", type=Path, required=True)
    parser.add_argument("--gt", type=Path, required=True)
    parser.add_argument("--pred", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--frame", type=float, default=0.5, help="which frame: 0 the first, 1 the last")
    parser.add_argument("--sequences", nargs="+", default=[], metavar="NAME")
    args = parser.parse_args(arguments)
    if not 0 <= args.frame <= 1:
        raise UserError(f"--frame must lie between 0, the first frame, and 1, the last; got {args.frame}")
    if args.output.suffix.lower() != ".png":
        raise UserError(f"--output must end in .png, got {args.output}")
    rows = []
    for video in find_videos(args.images, args.flows, args.sequences):
        assert video.flows is not None  # asked for above
        index = round(args.frame * (len(video.frames) - 1))
        image, flow = read_rgb(video.frames[index]), read_flow_rgb(video.flows[index])
        mask = f"{video.name}/{video.frames[index].stem}.png"
        truth, prediction = read_mask(args.gt / mask) > 0, read_mask(args.pred / mask) > 0
        rows.append([image, flow, truth, prediction, draw_overlay(image, prediction)])
    with write_atomically(args.output) as stream:
        Image.fromarray(draw_strip(rows)).save(stream, "PNG")
    print(args.output)
    return 0
