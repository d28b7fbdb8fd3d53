"""Stitch and Enhance warn of scans beyond once the depth of focus."""

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import Provenance, capture_warnings
from napari_semsr.io.formats import write
from tests.analysis.test_focus import scan
from tests.tiny_models import write_tiny_model

LIGHT = Provenance(
    job="simulate",
    options={"optics": "pupil", "wavelength_nm": 550.0, "numerical_aperture": 1.8},
)
ADVICE = "at several heights (a focal series)"
INSTRUMENT = {"recipe": {"data": {"sources": {"superlens": 1.0}}}}


@pytest.mark.broad
@pytest.mark.parametrize("depths", [0.0, 3.0])
def test_a_mosaic_out_of_focus_is_warned_of(tmp_path, depths):
    image = scan(depths, side=600)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, (y, x) in enumerate(((0, 0), (0, 260), (260, 0), (260, 260))):
        part = image.array()[y : y + 340, x : x + 340]
        frame = image.replace(data=np.ascontiguousarray(part), provenance=LIGHT)
        write(frame, folder / f"frame_{number}.ome.tif")
    made = semsr.stitch(
        folder, tmp_path / "mosaic.ome.zarr", grid=(2, 2), flat_field="none"
    )
    assert made.pairs_used >= 4
    assert any(ADVICE in text for text in made.warnings) == (depths > 0)


def warnings_of(image, model):
    heard = []
    with capture_warnings(heard.append):
        semsr.enhance(image, model=model, device="cpu", tile=256)
    return [text for text in heard if ADVICE in text]


def test_models_of_optical_images_warn_of_a_scan_out_of_focus(tmp_path):
    near, farther = (scan(z).replace(provenance=LIGHT) for z in (0.0, 2.0))
    taught = write_tiny_model(tmp_path, name="taught", training=INSTRUMENT)
    plain = write_tiny_model(tmp_path, name="plain")
    assert not warnings_of(near, taught)
    assert len(warnings_of(farther, taught)) == 1
    assert not warnings_of(farther, plain)  # it restores images of any kind
    unknown = farther.replace(provenance=None)
    assert not warnings_of(unknown, taught)
