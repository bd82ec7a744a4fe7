"""Measure speed. The benchmarks are no part of the package: they live in the repository, in ``benchmarks/``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hmhi
from hmhi.commands.errors import report_errors
from hmhi.errors import UserError

BENCHMARKS = {
    "data": "data",
    "eval": "evaluation",
    "flow": "flow",
    "gpu": "gpu",
    "infer": "infer",
    "prompted": "prompted",
    "train": "train",
}


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one benchmark in a process that finds both packages, from any working directory."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Measure speed.", usage=f"%(prog)s {{{','.join(BENCHMARKS)}}} [options]"
    )
    parser.add_argument("what", choices=BENCHMARKS, help="'--help' behind it lists its options")
    words = list(sys.argv[1:] if arguments is None else arguments)
    what = parser.parse_args(words[:1]).what
    repository = Path(hmhi.__file__).resolve().parent.parent
    if not (repository / "benchmarks").is_dir():
        raise UserError(
            "the benchmarks are no part of the installed package; clone the repository and run "
            f"python tools/benchmark.py {what}"
        )
    path = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    module = f"benchmarks.{BENCHMARKS[what]}"
    return subprocess.run(
        [sys.executable, "-m", module, *words[1:]], env={**os.environ, "PYTHONPATH": path}
    ).returncode
