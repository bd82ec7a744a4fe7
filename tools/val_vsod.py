"""Score soft maps by MAE, F, E, S and weighted F: python tools/val_vsod.py --pred DIR --gt DIR [--dataset NAME]."""

import sys

from hmhi.evaluation.command import VSOD, run

if __name__ == "__main__":
    sys.exit(run(VSOD))
