"""How far what a model made may be off, and how a model's errors are learnt."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
