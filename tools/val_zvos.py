"""Score binary masks by J and F: python tools/val_zvos.py --pred DIR --gt DIR [--protocol NAME]."""

import sys

from hmhi.evaluation.command import ZVOS, run

if __name__ == "__main__":
    sys.exit(run(ZVOS))
