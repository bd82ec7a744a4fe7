"""Write one step of a network as an ONNX file: python tools/export_onnx.py --output FILE [--checkpoint FILE]."""

import sys

from hmhi.commands.export_onnx import main

if __name__ == "__main__":
    sys.exit(main())
