"""Entry point for ``python -m napari_semsr``, the same as ``semsr``."""

import sys

from napari_semsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
