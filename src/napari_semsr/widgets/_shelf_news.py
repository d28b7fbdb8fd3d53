"""Tells open panels that the shelf of models has changed."""

from psygnal import Signal

__all__ = ["NEWS"]


class _ShelfNews:
    """Has the signal."""

    changed = Signal()


NEWS = _ShelfNews()
"""Its `changed` is emitted, in the main thread, when a model came to the shelf."""
