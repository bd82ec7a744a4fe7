"""Bring a published data set into this project's layout: python tools/prepare_data.py DATASET --source PATH."""

import sys

from hmhi.commands.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
