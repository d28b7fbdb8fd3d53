"""The panel Train with an SEM image of the place."""

from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import Affine, Cancelled, Micrograph, parse_pixel_size
from napari_semsr.io import ImageIdentity, StoredTransform
from napari_semsr.jobs.adapt import train as adapting
from napari_semsr.jobs.adapt.process import fit_with_files
from napari_semsr.training import load_area_state
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.train.panel import TrainPanel
from tests.jobs.adapt.test_adapt import light_of, objects, sem_of

SIZE = parse_pixel_size(20.0)


def one_step(images, options, *, seconds, threads, **how):
    """Train for a step in this process; how good the model is does not matter here."""
    small = options.replace(copies=0, batch=1, patch_px=32)
    return fit_with_files(
        images, small, seconds=None, steps=1, threads=1, report_every_s=0.0, **how
    )


@pytest.fixture
def held_out(model):
    """Collect the layers of the held-out part that are added."""
    layers = []

    def note(event):
        if event.value.name == "held-out part: optical | now | SEM":
            layers.append(event.value)

    model.layers.events.inserted.connect(note)
    return layers


@pytest.fixture
def panel(model, hold, add, held_out, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    image = objects(3)
    for data, name in ((light_of(image), "mosaic"), (sem_of(image), "sem")):
        add(model, Micrograph(data, SIZE, name))

    def fit(*args, **how):
        job = one_step(*args, **how)
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                return end.value
            yield step
            # steps that come fast are left out: this one is repeated until it is shown
            while getattr(step, "images", None) and not held_out:
                yield step

    monkeypatch.setattr(adapting, "fit_in_process", fit)
    monkeypatch.setattr(adapting, "require_gain", lambda found, name: None)
    return hold(TrainPanel(model))


def taken(panel, model):
    """Bring a registration, as Register does."""
    low, high = model.layers["mosaic"], model.layers["sem"]
    sides = [
        ImageIdentity.from_image(micrograph_from_layer(one)) for one in (low, high)
    ]
    stored = StoredTransform(Affine(), *sides, {"error_nm": 1.0})
    panel.take_registered(low, high, stored)


@pytest.mark.broad
def test_after_stop_here_train_goes_on_and_both_results_stay(
    panel, model, held_out, run_panel, monkeypatch
):
    steps, fit = [], adapting.fit_in_process

    def stops(*args, state_file, stop_file, **how):
        steps.append(state_file.is_file() and load_area_state(state_file)["steps"])
        if len(steps) == 3:
            raise Cancelled
        files = {"state_file": state_file, "stop_file": stop_file}
        fitted = yield from fit(*args, **files, **how)
        if len(steps) == 1:
            stop_file.touch()  # as Stop here does
        return fitted

    taken(panel, model)
    monkeypatch.setattr(adapting, "fit_in_process", stops)
    done, bar = [], panel.progress_bar
    panel.runner.stepped.connect(lambda _: done.append(bar.value() / bar.maximum()))
    assert "Train resumes the training" in run_panel(panel)
    assert done == sorted(done)
    assert done[-1] > 0.5
    first = list(model.layers)
    message = run_panel(panel)
    assert steps == [False, 1]
    assert "resumes" not in message
    assert tuple(held_out[0].scale) == (20, 20)
    assert held_out[0] not in model.layers  # it would widen what Home shows
    assert len(model.layers) == len(first) + 1
    assert all(layer in model.layers for layer in first)
    stores = [item.metadata.get("semsr store") for item in model.layers]
    stores = [Path(store) for store in stores if store]
    assert len(set(stores)) == 2
    assert all(store.is_dir() for store in stores)
    run_panel(panel)  # of one that has ended: another training
    assert steps[2:] == [False]


@pytest.mark.broad
def test_a_refusal_names_what_a_user_of_the_window_can_do(panel, model, run_panel):
    model.layers["sem"].data = sem_of(np.zeros((192, 288)))
    said = run_panel(panel)
    assert "cannot be registered" in said
    assert "press 'Train on these'" in said
    assert "--" not in said
