"""Segment the salient object of videos: python tools/infer.py --input VIDEO --output FOLDER [options]."""

import sys

from hmhi.commands.segment import main

if __name__ == "__main__":
    sys.exit(main())
