"""Write the masks of two trivial methods: python tools/make_baselines.py --flow FLOWS --output FOLDER."""

import sys

from hmhi.commands.make_baselines import main

if __name__ == "__main__":
    sys.exit(main())
