"""Score masks of several objects by J and F of each: python tools/val_svos.py --pred DIR --gt DIR [options]."""

import sys

from hmhi.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main(["objects", *sys.argv[1:]], prog=sys.argv[0]))
