"""Write masks for annotation tools: python tools/export_masks.py --from outputs/walk --to coco."""

import sys

from hmhi.commands.export_masks import main

if __name__ == "__main__":
    sys.exit(main())
