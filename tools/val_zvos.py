"""Score binary masks by J and F: python tools/val_zvos.py --pred DIR --gt DIR [options]."""

import sys

from hmhi.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main(["masks", *sys.argv[1:]], prog=sys.argv[0]))
