"""Write the masks of a run for annotation tools; docs/EXPORTS.md describes the formats.

python tools/export_masks.py --from outputs/walk --to coco
python tools/export_masks.py --from outputs/walk --to yolo --images --category dog
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.exports.export import FORMATS, export_run


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Write the masks of a run for annotation tools.")
    parser.add_argument(
        "--from", dest="run", type=Path, required=True, metavar="FOLDER", help="what hmhi segment wrote"
    )
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format, see docs/EXPORTS.md")
    parser.add_argument(
        "--output", type=Path, help="folder to make; default: exports/FORMAT in --from, which is replaced"
    )
    parser.add_argument(
        "--images", action="store_true", help="also write the frames, where the format wants them"
    )
    parser.add_argument(
        "--category", default="object", metavar="NAME", help="of the one class; default: object"
    )
    args = parser.parse_args(arguments)
    folder = export_run(args.run, args.to, args.output, category=args.category, images=args.images)
    print(f"wrote {folder}")
    return 0
