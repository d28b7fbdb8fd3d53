"""Every store that a job writes is OME-Zarr 0.5, labels and all."""

import json

import numpy as np
import pytest
import yaozarrs

import napari_semsr
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import write
from napari_semsr.jobs.crop import CropOptions, crop_job
from napari_semsr.jobs.degrade import degrade_job
from napari_semsr.jobs.enhance import enhance_job
from napari_semsr.jobs.images import convert_job
from napari_semsr.jobs.measure.resolution import frc_map_job
from napari_semsr.jobs.restore import restore_job
from napari_semsr.jobs.stitch import stitch_job
from napari_semsr.restoration.method import RestoreOptions

JOBS = {
    "convert": lambda image, out: convert_job(image, out),
    "crop": lambda image, out: crop_job(
        image, out, options=CropOptions(box=(3, 4, 100, 90))
    ),
    "degrade": lambda image, out: degrade_job(image, out),
    "enhance": lambda image, out: enhance_job(
        image, out, options=EnhanceOptions(tile=64, device="cpu")
    ),
    "frc-map": lambda image, out: frc_map_job(image, None, out),
    "restore": lambda image, out: restore_job(
        image, out, options=RestoreOptions(method="wiener", psf="1px", tile=64)
    ),
}


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


def test_the_store_of_a_mosaic_and_its_labels_pass_the_validator(tmp_path):
    frames, store = tmp_path / "frames", tmp_path / "out.ome.zarr"
    napari_semsr.simulate(
        frames, phantom="particles", frames_grid=(2, 2), frame_px=128, seed=1
    )
    run(stitch_job(frames, store))
    yaozarrs.validate_zarr_store(str(store))
    yaozarrs.validate_zarr_store(str(store / "labels" / "coverage"))
    about = store / "labels" / "zarr.json"
    kept = json.loads(about.read_text())
    kept["attributes"]["ome"]["labels"] = ["other"]
    about.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="other"):
        yaozarrs.validate_zarr_store(str(store))
