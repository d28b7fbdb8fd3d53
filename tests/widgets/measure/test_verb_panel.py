"""A panel that the value of a verb alone makes."""

import numpy as np

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.base import VERB_PANELS, create_panel


def test_particle_sizes_are_those_of_an_image_and_of_labels(
    model, hold, add, run_panel
):
    y, x = np.indices((120, 140))
    discs = 50 + 100.0 * (np.hypot(y - 60, x - 40) < 15)
    labels = np.where(np.hypot(y - 60, x - 90) < 12, 5, 0)
    model.add_labels(labels, name="drawn", scale=(3, 3), units=("nm", "nm"))
    add(model, Micrograph(discs, (2.0, 2.0), "discs"))
    panel = hold(create_panel(model, VERB_PANELS["Particle sizes"]))
    assert panel.boxes["image"].value.name == "discs"
    assert "Measured discs: Particles 1, Median diameter 59" in run_panel(panel)
    discs = model.layers["Particle sizes: discs"]
    np.testing.assert_allclose(discs.data_to_world(discs.data[0]), (120, 80), atol=0.5)
    assert 29 < discs.size[0] < 30.5
    panel.boxes["image"].value = model.layers["drawn"]
    said = run_panel(panel)
    assert said.startswith("Measured drawn: Particles 1, Median diameter 70.7")
    assert said.count("Median") == 1
    curves = panel.findings().curves
    assert list(curves["Particles"]["Label"]) == [5]
    assert "Diameters" in curves


def test_the_ring_around_a_large_particle_is_narrow(model, hold, add, run_panel):
    y, x = np.indices((160, 200))
    discs = np.full(y.shape, 50.0)
    for column, radius in ((60, 40), (150, 8)):
        discs[np.hypot(y - 80, x - column) < radius] = 150
    add(model, Micrograph(discs, (2.0, 2.0), "discs"))
    run_panel(hold(create_panel(model, VERB_PANELS["Particle sizes"])))
    rings = model.layers["Particle sizes: discs"]
    large, small = np.argmax(rings.size), np.argmin(rings.size)
    widths = rings.size * rings.border_width
    assert 4 < rings.size[large] / rings.size[small] < 6
    assert widths[large] < 3 * widths[small]
