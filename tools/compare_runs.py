"""Table of the last validation of training runs: python tools/compare_runs.py RUN ..."""

import sys

from hmhi.commands.compare_runs import main

if __name__ == "__main__":
    sys.exit(main())
