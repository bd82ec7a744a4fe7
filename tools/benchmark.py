"""Measure speed: python tools/benchmark.py WHAT [options]; WHAT --help lists the options of one benchmark."""

import argparse
import importlib
import sys

BENCHMARKS = {
    "data": "hmhi.benchmarks.data",
    "eval": "hmhi.benchmarks.evaluation",
    "infer": "hmhi.benchmarks.infer",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=BENCHMARKS)
    what = parser.parse_args(sys.argv[1:2]).what
    benchmark = importlib.import_module(BENCHMARKS[what])  # each pulls in only what it measures
    try:
        return benchmark.main(sys.argv[2:])
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
