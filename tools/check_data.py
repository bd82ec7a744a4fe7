"""Report on a data root: python tools/check_data.py [DATASET ...] [--root data]."""

import sys

from hmhi.commands.check_data import main

if __name__ == "__main__":
    sys.exit(main())
