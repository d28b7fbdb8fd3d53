"""Panels say errors in their own words."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.restore import RestorePanel
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from napari_semsr.widgets.train.panel import TrainPanel
from tests.widgets.scenes import edges


@pytest.fixture
def restore(model, hold):
    """A panel over a layer without a pixel size."""
    model.add_image(edges((64, 64)), name="bare")
    return hold(RestorePanel(model))


def test_existing_store_names_the_row_that_replaces_it(restore, run_panel, tmp_path):
    store = tmp_path / "made.ome.zarr"
    store.mkdir()
    (store / "other").write_text("kept")
    restore.output.value = store
    restore.form.set_values(psf="1px")
    assert "'Replace an existing store'" in run_panel(restore)
    assert (store / "other").read_text() == "kept"


@pytest.mark.broad
def test_blur_in_nm_asks_for_a_pixel_size_where_it_is_given(restore, run_panel):
    restore.form.set_values(psf="12nm")
    assert "give a pixel size (in Open mosaic), or the blur in px" in run_panel(restore)


@pytest.mark.broad
@pytest.mark.parametrize(
    ("kind", "flag", "said"),
    [
        (EnhancePanel, "--overwrite", "'If it exists: replace it'"),
        (StitchMosaicPanel, "--overwrite", "'If it exists: replace it'"),
        (TrainPanel, "--overwrite", "'Replace an earlier one'"),
        (StitchMosaicPanel, "--pixel-size-nm", "'Pixel size'"),
    ],
)
def test_every_panel_has_its_own_words_for_flags(kind, flag, said, model, hold):
    panel = hold(kind(model))
    panel.show_problem(f"It is damaged; start anew with {flag}.")
    assert panel.status.text() == f"It is damaged; start anew with {said}."


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["mine.tif", "mine.PNG", "mine.ome.tiff"])
def test_a_result_is_not_written_under_the_name_of_another_format(
    restore, run_panel, tmp_path, name
):
    restore.output.value = tmp_path / name
    restore.form.set_values(psf="1px")
    said = run_panel(restore)
    assert f"leave the suffix of {name} out under Save as" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["mine", "mine.zarr", "mine.ome.zarr"])
def test_a_result_takes_the_suffix_of_a_store(restore, run_panel, tmp_path, name):
    restore.output.value = tmp_path / name
    restore.form.set_values(psf="1px")
    assert "Restored" in run_panel(restore)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.ome.zarr"]


@pytest.mark.broad
def test_warning_of_a_run_is_said_once_in_the_panels_words(model, hold, run_panel):
    planes = np.stack([edges((64, 64), seed=seed) for seed in range(3)])
    model.add_image(planes, name="stack")
    panel = hold(RestorePanel(model))
    panel.all_planes.value = True
    assert run_panel(panel).startswith("Restored 3 planes")
    said = panel.warned.text()
    assert said.count("The blur was estimated") == 1
    assert "give 'Blur' when it is known" in said
    panel.form.set_values(psf="1px")
    run_panel(panel)
    assert panel.warned.text() == ""


@pytest.mark.broad
def test_warning_of_a_hidden_panel_is_a_notification(restore, run_panel, monkeypatch):
    told = []
    monkeypatch.setattr(notification_manager, "dispatch", told.append)
    run_panel(restore)
    assert [n.severity.value for n in told].count("warning") == 1


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", [EnhancePanel, RestorePanel])
def test_layer_without_a_pixel_is_refused(kind, model, hold, run_panel):
    model.add_image(np.full((64, 64), np.nan, np.float32), name="hole")
    panel = hold(kind(model))
    assert "needs finite pixels, and hole has none" in run_panel(panel)
    assert len(model.layers) == 1
