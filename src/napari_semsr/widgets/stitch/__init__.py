"""The Stitch mosaic panel, and how the frames of a scan are shown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
