"""Verbs in order over many images: a steps file, its checks, the run, one table."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
