"""Compute the optical flow of frame folders: python tools/make_flow.py --input FRAMES --output FLOWS."""

import sys

from hmhi.commands.make_flow import main

if __name__ == "__main__":
    sys.exit(main())
