"""``hmhi data``: what brings a data set in, checks it, or draws one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

STEPS = {"prepare": "prepare_data", "check": "check_data", "synthetic": "make_synthetic"}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one of the steps and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="prepare a published data set, check what is there, or draw synthetic videos.",
        usage="%(prog)s {prepare,check,synthetic} [options]",
    )
    parser.add_argument("step", choices=STEPS, help="'--help' behind it lists its options")
    words = list(sys.argv[1:] if arguments is None else arguments)
    step = parser.parse_args(words[:1]).step
    return int(import_module(f"hmhi.commands.{STEPS[step]}").main(words[1:], prog=f"{parser.prog} {step}"))
