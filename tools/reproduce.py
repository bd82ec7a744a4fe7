"""Reproduce a paper's table: python tools/reproduce.py --paper hmhi --table N [--row NAME] [--dry-run]."""

import sys

from hmhi.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
