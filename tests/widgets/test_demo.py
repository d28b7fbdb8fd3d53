import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import Progress
from napari_semsr.demonstration import DEMO, DemoResult
from napari_semsr.io.formats import write
from napari_semsr.widgets import demo
from napari_semsr.widgets.base.results import is_unsaved


@pytest.fixture
def panel(model, hold, replace_command) -> demo.DemoPanel:
    """The panel, and in place of the demonstration what it leaves behind."""

    def made(folder, *, options, **_):
        yield Progress(0, 1, "drawing")
        folder.mkdir()
        names = {
            "mosaic": "mosaic.ome.zarr",
            "place_sem": "sem.ome.tif",
            "enhanced": "enhanced.ome.zarr",
        }
        paths = {role: str(folder / name) for role, name in names.items()}
        for path in paths.values():
            pixels = np.full((options.frame_px, 40), 7, np.uint8)
            write(Micrograph(pixels, parse_pixel_size(20.0), "made"), path)
        objects = {"shown": 8, "objects": 9, "invented": 1, "drawn": 10}
        versions = {
            name: {"gain_below_cutoff_db": gain, "psnr_db": 30.0, "objects": objects}
            for name, gain in (("input", 0.0), ("adapted model", 7.5))
        }
        scan = {"placed": 20, "frames": 20}
        scan |= {"nominal_error_px": 5.0, "solved_error_px": 0.1}
        return DemoResult(
            report=str(folder / "report.html"),
            seconds=1.0,
            frames="frames",
            model="place.safetensors",
            figures={
                "scan": scan,
                "mosaic": {"halves": {"resolution_nm": 160.0}},
                "adapt": {"evaluated": versions},
                "elsewhere": {"versions": versions, "unfamiliar_percent": 93.0},
                "electron_image": {"versions": versions},
            },
            **paths,
        )

    replace_command(DEMO, made)
    shown = hold(demo.DemoPanel(model))
    shown.form.set_values(frame_px=200)
    return shown


def test_demonstration_ends_in_layers_and_a_report(panel, model, run_panel, tmp_path):
    panel.folder.value = tmp_path
    assert "The layers show the same" in run_panel(panel)
    assert panel.report == str(tmp_path / "demonstration" / "report.html")
    shown = {layer.name: layer for layer in model.layers}
    assert list(shown) == [
        "mosaic",
        "SEM image",
        "mosaic · adapted",
    ]
    assert all(layer.data.shape == (200, 40) for layer in model.layers)
    assert model.layers.selection.active is shown["mosaic · adapted"]
    assert all(layer.visible for layer in model.layers)
    assert not any(is_unsaved(layer) for layer in model.layers)  # where the user chose
    said = panel.figures.text()
    assert "20 of 20 placed" in said
    assert "adapted model +7.50 dB" in said
    assert "adapted model 8 of 9 shown, 1 of 10 invented" in said
    assert "93 %" in said


@pytest.mark.broad
def test_demonstration_without_a_folder_is_not_saved(panel, model, run_panel):
    run_panel(panel)
    assert all(is_unsaved(layer) for layer in model.layers)
    assert "Not saved" in panel.messages.unsaved_label.text()
