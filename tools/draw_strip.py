"""Draw results in one picture: python tools/draw_strip.py --images DIR --flows DIR --gt DIR --pred DIR ..."""

import sys

from hmhi.commands.draw_strip import main

if __name__ == "__main__":
    sys.exit(main())
