"""Undo of removed layers, one removal after another."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from napari_semsr.widgets.base.history import get_removed_layers

NAMES = ["first", "second", "third"]


@pytest.fixture
def history(model):
    """Three layers of 800 bytes, each removed in a step of its own."""
    history = get_removed_layers(model)
    for name in NAMES:
        model.add_image(np.zeros((10, 10)), name=name)
    return history


def remove(model, history, *names):
    for name in names:
        model.layers.remove(name)
    history.end_removal()


def test_removals_are_kept_within_the_free_memory(model, history, monkeypatch):
    free = SimpleNamespace(available=1700)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    first = model.layers["first"]
    for name in NAMES:
        remove(model, history, name)
    assert not history.can_restore(first)
    assert [history.undo(), history.undo()] == ["removal of third", "removal of second"]
    assert history.undo() == ""
    free.available = 0  # the last removal can always be undone
    remove(model, history, "third")
    assert history.undo() == "removal of third"
