"""Every store that a job writes is OME-Zarr 0.5, labels and all."""

import json

import numpy as np
import pytest
import yaozarrs

import napari_semsr
from napari_semsr.core import Micrograph, run
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import describe, read, write
from napari_semsr.jobs import CROP, ENHANCE, FRC_MAP, RESTORE, STITCH, CropOptions
from napari_semsr.jobs.convert import convert
from napari_semsr.jobs.degrade import degrade
from napari_semsr.restoration.method import RestoreOptions

JOBS = {
    "convert": lambda image, out: convert.job(image, output=out),
    "crop": lambda image, out: CROP.job(
        image, output=out, options=CropOptions(box=(3, 4, 100, 90))
    ),
    "degrade": lambda image, out: degrade.job(image, output=out),
    "enhance": lambda image, out: ENHANCE.job(
        image, out, options=EnhanceOptions(tile=64, device="cpu")
    ),
    "frc-map": lambda image, out: FRC_MAP.job(image, output=out),
    "restore": lambda image, out: RESTORE.job(
        image, out, options=RestoreOptions(method="wiener", psf="1px", tile=64)
    ),
}


@pytest.mark.quick(2)
@pytest.mark.filterwarnings("ignore:a has no pixel size")
@pytest.mark.parametrize("size", [None, (7.5, 7.25)], ids=["pixels", "nm"])
@pytest.mark.parametrize("name", JOBS)
def test_the_store_of_a_job_passes_the_validator(name, size, tmp_path, rng):
    image = tmp_path / "a.tif"
    grey = (rng.random((150, 140)) * 255).astype(np.uint8)
    write(Micrograph(grey, size, "a"), image)
    store = tmp_path / "out.ome.zarr"
    run(JOBS[name](image, store))
    yaozarrs.validate_zarr_store(str(store))


@pytest.mark.filterwarnings("ignore:a has no pixel size")
@pytest.mark.parametrize("size", [None, (7.5, 7.25)], ids=["pixels", "nm"])
def test_a_store_of_ome_zarr_0_4_is_valid_and_read_again(size, tmp_path, rng):
    grey = (rng.random((1100, 600)) * 255).astype(np.uint8)
    image, store = Micrograph(grey, size, "a"), tmp_path / "out.ome.zarr"
    napari_semsr.convert(image, store, zarr_version="0.4")
    yaozarrs.validate_zarr_store(str(store))
    assert (store / "0" / "2" / "1").is_file()
    assert json.loads((store / "0" / ".zarray").read_text())["zarr_format"] == 2
    again = read(store)
    assert np.array_equal(again.array(), grey)
    assert (again.pixel_size_nm, again.name) == (size, "a")
    assert again.provenance.job == "convert"
    assert describe(store).format == "OME-Zarr 0.4"
    coarse = read(store, level=1)
    assert coarse.shape == (550, 300)
    assert coarse.origin == tuple(side / 2 for side in size or (1.0, 1.0))


@pytest.mark.broad
def test_the_store_of_a_mosaic_and_its_labels_pass_the_validator(tmp_path):
    frames, store = tmp_path / "frames", tmp_path / "out.ome.zarr"
    how = {"phantom": "particles", "frames_grid": (1, 2), "frame_px": 64}
    napari_semsr.simulate(frames, **how, overlap=0.4)
    run(STITCH.job(frames, store))
    older = tmp_path / "b.ome.zarr"
    napari_semsr.convert(store, older, zarr_version="0.4")
    for path in (store, older):
        yaozarrs.validate_zarr_store(str(path))
        yaozarrs.validate_zarr_store(str(path / "labels" / "coverage"))
