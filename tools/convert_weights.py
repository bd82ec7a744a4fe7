"""Convert weights: python tools/convert_weights.py INPUT OUTPUT --to release|hmhi, or --backbone NAME."""

import sys

from hmhi.commands.convert_weights import main

if __name__ == "__main__":
    sys.exit(main())
