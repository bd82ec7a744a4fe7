"""All that a rented hour on a GPU should answer, in one call of less than ten minutes.

Needs a checkout and nothing else: no data, no network; weights are random or bundled. Every part runs in a process of
its own for at most its share of the time that is left. One that fails or takes too long is told in the report, with
what it had found by then, and the others go on. The report is written anew after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import PARTS, SETTINGS, Figure
from benchmarks.machine import describe_machine
from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.media.atomic import write_json

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = "tests"
"""The part that `--tests` adds: `pytest -m gpu`."""
TESTS_SHARE = 300


@report_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and write gpu.json and gpu.md; 1 where a part failed."""
    options = _parser().parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--device {options.device}: this torch sees no CUDA device; --device cpu --size small runs every part "
            f"all the same"
        )
    if options.minutes <= 0:
        raise UserError(f"--minutes must be positive, got {options.minutes:g}")
    if options.part is not None:
        run_part(options.part, options)
        return 0
    shares = {name: part.share for name, part in PARTS.items() if name in (options.parts or PARTS)}
    if options.tests:
        shares[TESTS] = TESTS_SHARE
    options.output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "machine": describe_machine(torch.device(options.device)), "settings": asdict(SETTINGS[options.size]),
        "commit": _commit(), "command": list(sys.argv[1:] if arguments is None else arguments), "parts": {},
    }  # fmt: skip
    end = time.monotonic() + 60 * options.minutes
    while shares:
        name = next(iter(shares))
        limit = (end - time.monotonic()) * shares[name] / sum(shares.values())
        del shares[name]
        report["parts"][name] = start_part(name, limit, options)
        write_json(options.output / "gpu.json", report)
        (options.output / "gpu.md").write_text(format_report(report), encoding="utf-8")
    print(format_report(report))
    return int(any(part["error"] for part in report["parts"].values()))


def start_part(name: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own for at most `limit` seconds; what it says goes to a file of its name.

    Returns:
        ``figures``, ``seconds``, and ``error``: None, or what kept it from finding more.
    """
    file, log = options.output / f"{name}.json", options.output / f"{name}.log"
    file.unlink(missing_ok=True)
    paths = [str(REPOSITORY), str(REPOSITORY / "tests" / "parity"), os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", options.device, "--size", options.size,
        "--minutes", str(limit / 60), "--output", str(options.output.resolve()),
    ]  # fmt: skip
    if name == TESTS:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    print(f"{name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
    begin = time.monotonic()
    error = None
    try:
        with log.open("wb") as output:
            code = subprocess.run(
                command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdout=output, stderr=subprocess.STDOUT, timeout=max(0.1, limit),
            ).returncode  # fmt: skip
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        if code != 0:
            error = f"exit code {code}: {last}"
        elif name == TESTS:
            figure = Figure(last, None, "")
            write_json(file, {"figures": [asdict(figure)], "error": None})
    except subprocess.TimeoutExpired:
        error = f"took longer than the {limit:.0f} s that were its share"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"figures": [], "error": None}
    file.unlink(missing_ok=True)
    seconds = round(time.monotonic() - begin, 1)
    return {"figures": found["figures"], "seconds": seconds, "error": error or found["error"]}


def run_part(name: str, options: argparse.Namespace) -> None:
    """Run a part in this process; what it has found so far always stands in a file."""
    file = options.output / f"{name}.json"
    figures: list[dict[str, Any]] = []
    try:
        for figure in PARTS[name].run(SETTINGS[options.size], options.device, 60 * options.minutes):
            figures.append(asdict(figure))
            write_json(file, {"figures": figures, "error": None})
    except Exception as error:  # whatever it is: the report tells it, and the other parts go on
        traceback.print_exc()
        reason = str(error).strip().partition("\n")[0]
        write_json(file, {"figures": figures, "error": f"{type(error).__name__}: {reason}"})


def format_report(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    machine, settings = report["machine"], report["settings"]
    lines = [
        f"# {machine['device']}",
        "",
        f"torch {machine['torch']}, Python {machine['python']}, commit {report['commit']}; {settings['backbone']}, "
        f"{settings['size']} x {settings['size']}, T = {settings['memory_frames']}",
        "",
        "| part | figure | value | unit | aim |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, part in report["parts"].items():
        for figure in part["figures"]:
            value = "" if figure["value"] is None else f"{figure['value']:.4g}"
            lines.append(
                f"| {name} | {figure['name']} | {value} | {figure['unit']} | {figure['aim'] or ''} |"
            )
        if part["error"] is not None:
            lines.append(f"| {name} | **failed**: {part['error'].replace('|', '/')} | | | |")
    took = ", ".join(f"{name} {part['seconds']:.0f}" for name, part in report["parts"].items())
    return "\n".join([*lines, "", f"Seconds: {took}.", ""])


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/benchmark.py gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/gpu"), help="folder of gpu.json and gpu.md"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 ..., or cpu to try the parts out")
    parser.add_argument("--size", choices=SETTINGS, default="full", help="small is for trying the parts out")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together (default: 9.5)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--tests", action="store_true", help="run pytest -m gpu too")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # the process of one part
    return parser


if __name__ == "__main__":
    sys.exit(main())
