"""The panel Register; other panels ask it which two images show one area."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
