"""Write synthetic videos as a data set: python tools/make_synthetic.py --output data/Sample."""

import sys

from hmhi.commands.make_synthetic import main

if __name__ == "__main__":
    sys.exit(main())
