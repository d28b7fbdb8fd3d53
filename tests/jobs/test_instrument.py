"""The microscope that the files of an image state, and the model that follows."""

import json

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import Micrograph, get_error_code
from napari_semsr.io.formats import read, write
from napari_semsr.jobs.enhance import choose_model
from napari_semsr.simulation import draw_phantom

SEM = {"vendor": "FEI"}
SCANS = [
    ({}, SEM, "sem"),
    ({"wavelength_nm": 405}, {}, "optical"),
    ({"microsphere_um": 20}, {}, "optical"),
    ({"overlap": 0.4, "wavelength_nm": None}, {}, None),
]


@pytest.fixture
def scan(tmp_path):
    """Give a writer of a folder of two overlapping frames."""

    def write_scan(stated, metadata):
        folder = tmp_path / "scan"
        folder.mkdir()
        sample = draw_phantom("particles", (96, 160), seed=3) * 200 + 20
        sample += np.random.default_rng(0).normal(0, 1, sample.shape)
        for number, x in enumerate((0, 64)):
            frame = Micrograph(
                sample[:, x : x + 96].astype(np.uint8), (20, 20), metadata=metadata
            )
            write(frame, folder / f"frame_{number}.tif")
        if stated:
            (folder / "scan.json").write_text(json.dumps(stated))
        return folder

    return write_scan


@pytest.mark.parametrize(("stated", "metadata", "kind"), SCANS)
def test_what_the_frames_state_is_carried_through_all_steps(
    scan, tmp_path, stated, metadata, kind
):
    folder = scan(stated, metadata)
    mosaic = tmp_path / "mosaic.ome.zarr"
    napari_semsr.stitch(folder, mosaic)
    crop, copy = tmp_path / "crop.ome.tif", tmp_path / "copy.tif"
    napari_semsr.crop(mosaic, crop, box=(0, 0, 64, 80))
    napari_semsr.convert(crop, copy)
    restored = napari_semsr.restore(read(copy), method="wiener", psf="1.5px")
    for image in (*map(read, (mosaic, crop, copy)), restored):
        assert image.instrument == kind


@pytest.mark.parametrize(
    ("metadata", "name", "codes"),
    [
        (SEM, "sem-restore", []),
        ({"wavelength_nm": 405}, "ssum-sem", []),
        ({}, "sem-restore", ["model-unsuitable"]),
    ],
)
def test_the_default_model_is_that_of_the_microscope(metadata, name, codes):
    chosen, notes = choose_model(Micrograph(np.eye(8), metadata=metadata))
    assert chosen == name
    assert [get_error_code(one) for one in notes] == codes
