"""Score soft maps by MAE, F, E, S and weighted F: python tools/val_vsod.py --pred DIR --gt DIR [options]."""

import sys

from hmhi.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main(["maps", *sys.argv[1:]], prog=sys.argv[0]))
