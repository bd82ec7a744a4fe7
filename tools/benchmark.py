"""Measure speed: python tools/benchmark.py WHAT [options]; WHAT --help lists the options of one benchmark."""

import argparse
import importlib
import sys

from hmhi.command import report_errors

BENCHMARKS = {
    "data": "benchmarks.data",
    "eval": "benchmarks.evaluation",
    "infer": "benchmarks.infer",
}


@report_errors
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=BENCHMARKS)
    what = parser.parse_args(sys.argv[1:2]).what
    benchmark = importlib.import_module(BENCHMARKS[what])  # each pulls in only what it measures
    return benchmark.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
