"""Write a checkpoint's weights for release: python tools/export_weights.py --checkpoint FILE --output FILE."""

import sys

from hmhi.commands.export_weights import main

if __name__ == "__main__":
    sys.exit(main())
