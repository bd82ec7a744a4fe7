"""Measure speed: python tools/benchmark.py infer|gpu|eval|data|... [options]."""

import sys

from hmhi.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
