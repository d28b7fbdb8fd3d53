"""Run ``semsr`` as ``python -m napari_semsr``."""

import sys

from napari_semsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
