"""Every kind of layer, saved and reopened, gives the same answer to every measure."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel

import napari_semsr
from napari_semsr.core import SemsrError, run
from napari_semsr.io import get_reader
from napari_semsr.jobs import DECORRELATION, ERROR_MAP, FRC_MAP, METRICS, SPECTRUM
from napari_semsr.jobs.convert import CONVERT
from napari_semsr.widgets.base.results import (
    add_opened_image,
    get_cache_folder,
    open_store,
)
from napari_semsr.widgets.base.session import get_session
from napari_semsr.widgets.layers import get_network_name, is_map, micrograph_from_layer
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.project import SavePanel
from tests.children import LIMIT_MS
from tests.widgets.scenes import exposures_of, one_per_axis, with_gaps

pytestmark = pytest.mark.usefixtures("registered", "no_project")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of every kind of image; beside the mosaic lie its halves."""
    folder = tmp_path_factory.mktemp("kinds")
    napari_semsr.simulate(
        folder / "scan", phantom="pits", frames_grid=(2, 2), frame_px=128, overlap=0.6,
        jitter_px=2, field="square", photons=5000, seed=2,
    )  # fmt: skip
    napari_semsr.stitch(folder / "scan", folder / "mosaic.ome.zarr", halves=True)
    first, second = exposures_of()
    images = {
        "exposure": first,
        "gaps": with_gaps(first),
        "frc-map": run(FRC_MAP.job(first, second)).result.map,
    }
    for name, image in images.items():
        napari_semsr.write(image, folder / f"{name}.ome.zarr")
    run(SPECTRUM.job(first, output=folder / "spectrum.ome.zarr"))
    run(ERROR_MAP.job(first, second, output=folder / "error-map.ome.zarr"))
    return folder


def by_project(viewer, layer, folder, qtbot, choose):
    """Save all into a project, and open it in a viewer of its own."""
    panel, again = SavePanel(viewer), SavePanel(ViewerModel())
    for item in (panel, again):
        qtbot.addWidget(item)
    choose(folder / "p.semsr")
    panel.run_button.click()
    wait(panel, qtbot)
    assert "Everything is saved" in panel.status.text()
    again.open_button.click()
    wait(again, qtbot)
    assert "Opened" in again.status.text()
    return again.viewer, again.viewer.layers[layer.name]


def by_button(viewer, layer, folder, qtbot, choose):
    """Save a layer by the button of a panel, and open it with napari."""
    panel = SavePanel(viewer)
    qtbot.addWidget(panel)
    choose(folder / "saved.ome.tif", ".ome.tif")
    panel.result_layers.save_as(layer)
    wait(panel, qtbot)
    assert "was saved as" in panel.status.text()
    return opened(folder / "saved.ome.tif")


def by_napari(viewer, layer, folder, qtbot, choose):
    """Save a layer by napari's own menu, and open it with napari."""
    viewer.layers.selection.active = layer
    (path,) = layer.save(str(folder / "saved.ome.zarr"), plugin="napari-semsr")
    return opened(Path(path))


def by_command(viewer, layer, folder, qtbot, choose):
    """Convert the file of a layer, and open it with napari."""
    run(CONVERT.job(layer.metadata["semsr store"], output=folder / "saved.ome.zarr"))
    return opened(folder / "saved.ome.zarr")


WAYS = {
    "project": by_project,
    "button": by_button,
    "napari": by_napari,
    "convert": by_command,
}
MEASURES = {
    "metrics": METRICS.job,
    "spectrum": SPECTRUM.job,
    "decorrelation": DECORRELATION.job,
}
KINDS = ("mosaic", "exposure", "gaps", "frc-map", "error-map", "spectrum")


def opened(path):
    """Open a file as napari does."""
    viewer = ViewerModel()
    ((data, attributes, kind),) = get_reader(str(path))(str(path))
    return viewer, getattr(viewer, f"add_{kind}")(data, **attributes)


def wait(panel, qtbot):
    runners = panel.session.runner, panel.result_layers.saver
    qtbot.waitUntil(lambda: not any(r.is_busy for r in runners), timeout=LIMIT_MS)


@pytest.fixture
def answers(hold, run_panel):
    """Ask every measure of one image, and what the panels show of it."""

    def ask(viewer, layer):
        image = micrograph_from_layer(layer)
        told = {"pixels": image.array(), "pixel size": image.pixel_size_nm}
        told |= {"is map": is_map(layer), "network": get_network_name(layer)}
        for name, measure in MEASURES.items():
            try:
                found = run(measure(image)).to_json()
            except SemsrError as error:
                found = {"refused": str(error).replace(image.name, "it")}
            told[name] = {
                key: value for key, value in found.items() if "image" not in key
            }
        panel = hold(FrcMapPanel(viewer))
        listed = [item for item in panel.first.choices if item is layer]
        told["is proposed"] = bool(listed)
        if listed:
            panel.first.value, panel.second.value = layer, None
            run_panel(panel)
            numbers = panel.findings().numbers
            told["frc map"] = {
                name: str(value).replace(layer.name, "it")
                for name, value in numbers.items()
            }
        return told

    return ask


@pytest.mark.quick(1)
@pytest.mark.filterwarnings("ignore:.* has no pixel size")
@pytest.mark.parametrize(("way", "kind"), one_per_axis([*WAYS], KINDS))
def test_saved_layer_gives_the_same_answers(
    made, kind, way, model, qtbot, choose, answers, tmp_path
):
    place = get_cache_folder() / tmp_path.name  # as what a panel makes
    for path in made.glob(f"{kind}.*"):
        shutil.copytree(path, place / path.name)
    layer = add_opened_image(model, run(open_store(place / f"{kind}.ome.zarr")))
    before = answers(model, layer)
    for item in [item for item in model.layers if item is not layer]:
        model.layers.remove(item)
    viewer, again = WAYS[way](model, layer, tmp_path, qtbot, choose)
    after = answers(viewer, again)
    np.testing.assert_array_equal(before.pop("pixels"), after.pop("pixels"))
    assert before == after
    session = get_session(viewer)
    if session.folder is not None:  # it saves what was made meanwhile
        qtbot.waitUntil(lambda: not session.list_unsaved_names(), timeout=LIMIT_MS)
        qtbot.waitUntil(lambda: not session.runner.is_busy, timeout=LIMIT_MS)
