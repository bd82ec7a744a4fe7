"""Serve the web page: python tools/serve.py."""

import sys

from hmhi.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
