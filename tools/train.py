"""Train a model: python tools/train.py --config FILE [key=value ...] [--resume auto|PATH]."""

import sys

from hmhi.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
