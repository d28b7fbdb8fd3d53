"""What panels propose: the active layer, and what fits to it."""

import pytest

from napari_semsr.core.micrograph import InputRecord, Micrograph, Provenance
from napari_semsr.io import HELPER_KEY, LIVE_KEY
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.measure.quality import ComparePanel, QualityPanel
from napari_semsr.widgets.measure.resolution import ResolutionPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.train.panel import TrainPanel
from tests.widgets.scenes import create_classical, edges

BOXES = {
    OpenMosaicPanel: lambda panel: panel.calibrate.layer,
    EnhancePanel: lambda panel: panel.layer,
    ResolutionPanel: lambda panel: panel.first,
    QualityPanel: lambda panel: panel.image,
    TrainPanel: lambda panel: panel.low,
}
PIXELS = edges((64, 64))


@pytest.fixture
def put(model, add):
    return lambda name: add(model, Micrograph(PIXELS, (20.0, 20.0), name))


@pytest.fixture(params=BOXES, ids=lambda kind: kind.__name__)
def box(request, model, hold):
    """Open a panel, and give the list of what it works on."""
    panel = hold(request.param(model))
    if isinstance(panel, TrainPanel):
        panel.have.value = "pairs"
    yield BOXES[request.param](panel)
    panel.close()


@pytest.mark.quick(1)
def test_panel_works_on_the_active_layer(box, model, put):
    first, second = put("first"), put("second")
    assert box.value is second
    model.layers.selection.active = first
    assert box.value is first
    model.layers.selection.active = model.add_image(PIXELS, metadata={HELPER_KEY: True})
    assert box.value is first
    put("half done").metadata[LIVE_KEY] = True
    box.value = second
    assert box.value is second


def test_what_a_panel_makes_is_not_what_it_works_on_next(model, put, hold, run_panel):
    source = put("source")
    panel = hold(create_classical(model))
    assert "Wiener removed a blur" in run_panel(panel)
    assert model.layers.selection.active is not source
    assert panel.layer.value is source


# What is open, and what the panels propose beside the active layer.


@pytest.fixture
def opened(model, add):
    """Open layers by name: of which image and job, where, and whether whole."""

    def put_all(table):
        images, layers = {}, {}
        for name, (source, job, corner, whole) in table.items():
            history = None
            if source is not None:
                before = InputRecord(
                    role="image", name=source, provenance=images[source].provenance
                )
                network = {"model_name": "net", "model_digest": "sha256:1"}
                about = network if job == "enhance" else {}
                history = Provenance(job=job, inputs=(before,), **about)
            images[name] = Micrograph(
                PIXELS, (20.0, 20.0), name, history, origin=corner
            )
            layers[name] = add(model, images[name])
            if not whole:
                layers[name].metadata[LIVE_KEY] = True
        return layers

    return put_all


HERE, AWAY = (0.0, 0.0), (9e4, 0.0)
NOISY = {"noisy": (None, None, HERE, True)}
AVERAGED = {"averaged": (None, None, HERE, True)}
BETTER = {"better": ("noisy", "enhance", HERE, True)}
PARTLY = {"partly": ("noisy", "enhance", HERE, False)}
RESTORED = {"restored": ("noisy", "restore", HERE, True)}
FAR = {"far": (None, None, AWAY, True)}

PAIRS = {
    ResolutionPanel: lambda panel: (panel.first, panel.second),
    ComparePanel: lambda panel: (panel.boxes["enhanced"], panel.boxes["reference"]),
    TrainPanel: lambda panel: (panel.low, panel.high),
    OpenMosaicPanel: lambda panel: (panel.calibrate.layer, panel.crop.like),
}
PROPOSED = [
    # open layers; panel, its image (active, or the source of that), second image
    (NOISY | BETTER, ResolutionPanel, "noisy", None),
    (NOISY | FAR | PARTLY, ResolutionPanel, "noisy", None),
    (NOISY | AVERAGED | BETTER, ResolutionPanel, "noisy", "averaged"),
    (NOISY | RESTORED, ResolutionPanel, "restored", None),
    (AVERAGED | NOISY | BETTER, ComparePanel, "better", "averaged"),
    (NOISY | FAR | BETTER, ComparePanel, "better", "noisy"),
    (FAR | NOISY, ComparePanel, "noisy", None),
    (BETTER | PARTLY, ComparePanel, "better", None),
    (NOISY | BETTER | PARTLY, TrainPanel, "noisy", None),
    (NOISY | AVERAGED | PARTLY, TrainPanel, "noisy", "averaged"),
    (NOISY | RESTORED | FAR, TrainPanel, "far", None),
    (NOISY | FAR, OpenMosaicPanel, "far", None),
    (AVERAGED | NOISY, OpenMosaicPanel, "noisy", "averaged"),
]


@pytest.mark.parametrize(
    ("table", "kind", "image", "second"),
    PROPOSED,
    ids=lambda item: "+".join(item) if isinstance(item, dict) else str(item),
)
def test_a_second_image_fits_to_the_first(
    model, opened, hold, table, kind, image, second
):
    layers = opened(NOISY | table)
    for name in NOISY.keys() - table.keys():
        model.layers.remove(layers[name])
    active = image
    if kind is ResolutionPanel:  # a result, which it does not measure
        active = next((n for n in ("partly", "better") if n in table), image)
    model.layers.selection.active = layers[active]
    panel = hold(kind(model))
    if kind is TrainPanel:
        panel.have.value = "pairs"
    chosen = [box.value for box in PAIRS[kind](panel)]
    assert [item and item.name for item in chosen] == [image, second]
