"""``hmhi export``: masks for annotation tools, weights for release, or a network for ONNX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

WHAT = {"masks": "export_masks", "weights": "export_weights", "onnx": "export_onnx"}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one of the exports and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="write masks for annotation tools, a checkpoint's weights for release, or a network for ONNX.",
        usage="%(prog)s {masks,weights,onnx} [options]",
    )
    parser.add_argument("what", choices=WHAT, help="'--help' behind it lists its options")
    words = list(sys.argv[1:] if arguments is None else arguments)
    what = parser.parse_args(words[:1]).what
    return int(import_module(f"hmhi.commands.{WHAT[what]}").main(words[1:], prog=f"{parser.prog} {what}"))
