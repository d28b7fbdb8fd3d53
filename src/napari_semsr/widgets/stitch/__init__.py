"""The Stitch panel, and the layers that show the frames of a scan."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
