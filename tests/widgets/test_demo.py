from types import SimpleNamespace

import numpy as np
import pytest

from napari_semsr.analysis.frc.validity import code_of
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.core.progress import Progress
from napari_semsr.demonstration import DemoResult
from napari_semsr.io.formats import read, write
from napari_semsr.widgets import demo
from napari_semsr.widgets.base.results import is_unsaved


@pytest.fixture
def panel(model, hold, monkeypatch) -> demo.DemoPanel:
    """The panel, and in place of the demonstration what it leaves behind."""

    def made(folder, *, options):
        yield Progress(0, 1, "drawing")
        folder.mkdir()
        names = {
            "mosaic": "mosaic.ome.zarr",
            "registered": "registered.ome.zarr",
            "place_sem": "sem.ome.tif",
            "enhanced": "enhanced.ome.zarr",
            "tuned": "tuned.ome.zarr",
            "frc_map": "map.ome.tif",
        }
        paths = {role: str(folder / name) for role, name in names.items()}
        for path in paths.values():
            pixels = np.full((options.size, 40), 7, np.uint8)
            write(Micrograph(pixels, parse_pixel_size(20.0), "made"), path)
        version = SimpleNamespace(
            label="Enhanced",
            cross=SimpleNamespace(resolution_nm=40.0),
            metrics=SimpleNamespace(psnr_db=30.0),
        )
        half = SimpleNamespace(measured=SimpleNamespace(versions=[version]))
        codes = np.full((options.size, 40), code_of("beyond-nyquist"))
        blocks = SimpleNamespace(map=read(paths["frc_map"]), reasons=codes)
        maps = {"tuned_against_sem": ("", blocks)}
        place = SimpleNamespace(
            measured=SimpleNamespace(versions=[version], maps=maps),
            registered=SimpleNamespace(error_nm=3.0),
            true_error_nm=2.5,
            untouched=SimpleNamespace(provenance=SimpleNamespace(model_name="a-model")),
        )
        scan = {"placed": 20, "frames": 20}
        scan |= {"nominal_error_px": 5.0, "solved_error_px": 0.1}
        return DemoResult(
            report=str(folder / "report.html"),
            seconds=1.0,
            frames="frames",
            figures={"scan": scan},
            scan=SimpleNamespace(measured=SimpleNamespace(pair=None)),
            place=place,
            sem=half,
            **paths,
        )

    monkeypatch.setattr(demo, "DEMO", SimpleNamespace(job=made))
    shown = hold(demo.DemoPanel(model))
    shown.form.set_values(size=200)
    return shown


def test_demonstration_ends_in_layers_and_a_report(panel, model, run_panel, tmp_path):
    panel.folder.value = tmp_path
    assert "the layers show one place" in run_panel(panel)
    assert panel.report == str(tmp_path / "demonstration" / "report.html")
    shown = {layer.name: layer for layer in model.layers}
    assert list(shown) == [
        "mosaic",
        "mosaic · registered",
        "SEM image",
        "mosaic · a-model",
        "mosaic · fine-tuned",
        "mosaic · fine-tuned · FRC map (nm)",
        "mosaic · fine-tuned · failed blocks",
    ]
    assert all(layer.data.shape == (200, 40) for layer in model.layers)
    assert model.layers.selection.active is shown["mosaic · fine-tuned"]
    hidden = [name for name, layer in shown.items() if not layer.visible]
    assert hidden == ["mosaic"]  # it lies on other axes
    *kept, _ = model.layers  # all but the colours of blocks
    assert not any(is_unsaved(layer) for layer in kept)  # where the user chose
    assert "20 of 20 placed" in panel.figures.text()
    assert "2.5 nm" in panel.figures.text()
    assert "30.00 dB" in panel.figures.text()


@pytest.mark.broad
def test_demonstration_without_a_folder_is_not_saved(panel, model, run_panel):
    run_panel(panel)
    assert all(is_unsaved(layer) for layer in model.layers)
    assert "Not saved" in panel.unsaved.text()
