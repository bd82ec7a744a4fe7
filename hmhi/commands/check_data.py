"""Report on a whole data root: what is there, what is wrong, how to fix it, which configs can run.

Example:
    python tools/check_data.py davis16 fbms --root data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import hmhi
from hmhi.commands.errors import report_errors
from hmhi.config import load_config
from hmhi.data.check import SplitReport, all_splits, check_split, find_shared_images, readiness

CONFIGS = Path(hmhi.__file__).resolve().parent.parent / "configs"  # in the repository only
SHOWN = 5


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=prog, description="Report on a data root: contents, problems and their fixes."
    )
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help="default: all that are there")
    parser.add_argument("--root", type=Path, default=Path("data"), help="data folder (default: data)")
    parser.add_argument(
        "--decode",
        type=int,
        default=3,
        metavar="N",
        help="frames of each video to decode; 0 for all (default: 3)",
    )
    args = parser.parse_args(arguments)
    reports = [check_split(args.root, *key, args.decode) for key in all_splits(args.datasets)]
    present = [report for report in reports if not report.absent]
    wanted = reports if args.datasets else present
    print_contents(present)
    problems = sum(print_findings(report) for report in wanted)
    shared = find_shared_images(present)
    for finding in shared:
        print(f"\nPROBLEM {finding.problem}\n    fix: {finding.fix}")
    print_readiness(reports)
    if not present:
        which = "none of these data sets is" if args.datasets else "no data set"
        print(f"error: {which} in {args.root}; docs/DATA.md says how to get them", file=sys.stderr)
    return 2 if problems or shared or not present else 0


def print_contents(reports: list[SplitReport]) -> None:
    print(
        f"{'data set':<18}{'split':<7}{'videos':>7}{'frames':>8}{'masks':>8}{'flow':>8}  {'made by':<18}"
        f"{'state':<10}sizes; truth"
    )
    for report in reports:
        sizes = ", ".join(f"{size} ({count})" for size, count in report.sizes.most_common(3))
        truth = ", ".join(report.truth)
        print(
            f"{report.dataset:<18}{report.split:<7}{len(report.videos):>7}{report.frames:>8}{report.masks:>8}"
            f"{report.flows:>8}  {report.flow_made_by if report.flows else '':<18}{report.state:<10}{sizes}; {truth}"
        )


def print_findings(report: SplitReport) -> int:
    """Print the problems that one fix solves, and the fix; returns how many problems there are, notes left out."""
    alike: dict[tuple[bool, str], list[str]] = {}
    for finding in report.findings:
        alike.setdefault((finding.note, finding.fix), []).append(finding.problem)
    for (note, fix), problems in alike.items():
        print()
        for problem in problems[:SHOWN]:
            print(f"{'note' if note else 'PROBLEM'} {report.dataset} {report.split}: {problem}")
        if len(problems) > SHOWN:
            print(f"    and {len(problems) - SHOWN} more")
        print(f"    fix: {fix}")
    return sum(not finding.note for finding in report.findings)


def print_readiness(reports: list[SplitReport]) -> None:
    if CONFIGS.is_dir():
        print("\nconfig                        can run")
    for path in sorted(CONFIGS.glob("*.yaml")):
        print(f"{path.name:<30}{readiness(load_config(path).data, reports)}")
