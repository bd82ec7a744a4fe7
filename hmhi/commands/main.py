"""The console script ``hmhi``: which command, and the rest of the line for it.

Nothing heavy is imported before the command is known, so that ``hmhi --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from hmhi.version import __version__


@dataclass(frozen=True)
class Command:
    """One row of ``hmhi --help``."""

    module: str
    """Below `hmhi.commands`."""
    summary: str
    tool: str
    """The same command as a file in the repository."""


COMMANDS = {
    "segment": Command("segment", "segment the salient object of videos, or given objects", "infer.py"),
    "evaluate": Command("evaluate", "score masks, objects or soft maps", "val_zvos.py, val_svos.py, val_vsod.py"),
    "train": Command("train", "train a model", "train.py"),
    "flow": Command("make_flow", "compute the optical flow of frame folders", "make_flow.py"),
    "data": Command("data", "prepare, check or draw data sets", "prepare_data.py, check_data.py, make_synthetic.py"),
    "export": Command(
        "export", "write masks for annotation tools, weights for release, or a network for ONNX",
        "export_masks.py, export_weights.py, export_onnx.py",
    ),
    "serve": Command("serve", "serve a web page, and its HTTP door for programs", "serve.py"),
    "convert": Command("convert_weights", "convert weights from and to published forms", "convert_weights.py"),
    "reproduce": Command("reproduce", "fill a table of a paper (needs the repository)", "reproduce.py"),
    "benchmark": Command("benchmark", "measure speed (needs the repository)", "benchmark.py"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    rows = "\n".join(
        f"  {name:<11}{command.summary}; tools/{command.tool}" for name, command in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        prog="hmhi",
        description="Video object segmentation with hierarchical memory.",
        epilog=f"commands:\n{rows}\n\n'hmhi COMMAND --help' lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="hmhi COMMAND [options]",
    )
    parser.add_argument("--version", action="version", version=f"hmhi {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = parser.parse_args(words[:1]).command
    command = import_module(f"hmhi.commands.{COMMANDS[name].module}")
    return int(command.main(words[1:], prog=f"hmhi {name}"))


if __name__ == "__main__":
    sys.exit(main())
