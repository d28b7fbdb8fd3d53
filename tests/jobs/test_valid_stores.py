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
from napari_semsr.jobs.convert import CONVERT
from napari_semsr.jobs.crop import CROP, CropOptions
from napari_semsr.jobs.degrade import DEGRADE
from napari_semsr.jobs.enhance import ENHANCE
from napari_semsr.jobs.measure.resolution import FRC_MAP
from napari_semsr.jobs.restore import RESTORE
from napari_semsr.jobs.stitch import STITCH
from napari_semsr.restoration.method import RestoreOptions

JOBS = {
    "convert": lambda image, out: CONVERT.job(image, output=out),
    "crop": lambda image, out: CROP.job(
        image, output=out, options=CropOptions(box=(3, 4, 100, 90))
    ),
    "degrade": lambda image, out: DEGRADE.job(image, output=out),
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


def test_the_store_of_a_mosaic_and_its_labels_pass_the_validator(tmp_path):
    frames, store = tmp_path / "frames", tmp_path / "out.ome.zarr"
    napari_semsr.simulate(
        frames, phantom="particles", frames_grid=(2, 2), frame_px=128, seed=1
    )
    run(STITCH.job(frames, store))
    yaozarrs.validate_zarr_store(str(store))
    yaozarrs.validate_zarr_store(str(store / "labels" / "coverage"))
    about = store / "labels" / "zarr.json"
    kept = json.loads(about.read_text())
    kept["attributes"]["ome"]["labels"] = ["other"]
    about.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="other"):
        yaozarrs.validate_zarr_store(str(store))
