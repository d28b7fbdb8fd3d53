"""A panel that the value of a verb alone makes."""

import numpy as np

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.base import VERB_PANELS, create_panel


def test_panel_measures_and_draws_its_curve(model, hold, rng, add, run_panel):
    data = 100 + np.linspace(0, 80, 200) + rng.normal(0, 4, (160, 200))
    add(model, Micrograph(data, (5.0, 5.0), "ramp"))
    panel = hold(create_panel(model, VERB_PANELS["Noise"]))
    assert "Measured ramp: Noise s.d. 4" in run_panel(panel)
    (line,) = panel.plot.axes[0].lines
    levels = line.get_xdata()
    assert levels[-1] - levels[0] > 60
    assert "noise s.d." in panel.findings().curves["Noise"]
