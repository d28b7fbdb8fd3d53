"""Stitch and Enhance warn of scans beyond once the depth of focus."""

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.analysis import FOCUS, Falloff
from napari_semsr.core import Provenance, capture_warnings
from napari_semsr.io.formats import write
from tests.analysis.test_focus import CUT_OFF, scan
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
    near, far, farther = (scan(z).replace(provenance=LIGHT) for z in (0.0, 1.5, 2.0))
    own = {FOCUS: Falloff.from_image(scan(0.0, seed=9), CUT_OFF).to_json()}
    taught = write_tiny_model(tmp_path, name="taught", training=INSTRUMENT)
    adapted = write_tiny_model(tmp_path, name="adapted", training=own)
    plain = write_tiny_model(tmp_path, name="plain")
    assert not warnings_of(near, taught)
    assert not warnings_of(near, adapted)
    assert len(warnings_of(farther, taught)) == 1
    (sentence,) = warnings_of(far, adapted)
    assert "than the area that adapted was trained on" in sentence
    assert not warnings_of(farther, plain)  # it restores images of any kind
    unknown = farther.replace(provenance=None)
    assert not warnings_of(unknown, taught)
