"""Bring a published data set into this project's layout; docs/DATA.md says where to get each one.

Example:
    python tools/prepare_data.py davis16 --source DAVIS-2017-trainval-480p.zip
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.data.prepare.recipes import RECIPES
from hmhi.data.prepare.write import prepare


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    layouts = "\n".join(f"  {name}: {recipe.layout}" for name, recipe in RECIPES.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Bring a published data set into this project's layout (see docs/DATA.md).",
        epilog=f"published layouts:\n{layouts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=list(RECIPES))
    parser.add_argument(
        "--source", type=Path, nargs="+", required=True, metavar="PATH", help="folders, zip or tar archives"
    )
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--link", action="store_true", help="link to the images of source folders")
    how.add_argument("--copy", action="store_true", help="copy the images (default)")
    parser.add_argument(
        "--splits",
        choices=["train", "val", "both"],
        help="take these splits only, even where some of their published videos are missing (default: every split "
        "that the sources hold, complete)",
    )
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    manifest = prepare(
        RECIPES[args.dataset], args.source, args.root, "link" if args.link else "copy", args.splits
    )
    for split, counts in manifest["splits"].items():
        print(f"{split}: {counts['videos']} videos, {counts['frames']} frames, {counts['masks']} masks")
    print(f"next: python tools/check_data.py {args.dataset} --root {args.root}")
    return 0
