"""Table of the last validation of training runs; runs of one parent folder are seeds of one experiment.

python tools/compare_runs.py runs/mine/*/seed*
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError
from hmhi.media.files import read_text


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Compare the last validation of training runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder, EXPERIMENT/SEED")
    args = parser.parse_args(arguments)
    scores = defaultdict(list)
    for run in args.runs:
        scores[run.resolve().parent.name].append(last_validation(run))
    columns = sorted({name for runs in scores.values() for run in runs for name in run})
    print("\t".join(["experiment", "runs", *columns]))
    for experiment, runs in scores.items():
        cells = [spread([run[name] for run in runs if name in run]) for name in columns]
        print("\t".join([experiment, str(len(runs)), *cells]))
    return 0


def last_validation(run: Path) -> dict[str, float]:
    """Tag -> value of the newest validation in a run's metrics."""
    path = run / "metrics.jsonl"
    found: dict[str, float] = {}
    try:
        for line in map(json.loads, read_text(path).splitlines()):
            found |= {
                name.removeprefix("val/"): float(value)
                for name, value in line.items()
                if name.startswith("val/")
            }
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); a run writes one JSON object on each line") from None
    if not found:
        raise UserError(f"{run} has not been validated yet")
    return found


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation where there are several values."""
    deviation = f" +-{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}" if values else "-"
