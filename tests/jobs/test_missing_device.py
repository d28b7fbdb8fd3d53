"""A device that is not here is refused before anything is read."""

import pytest

from napari_semsr.core import OptionError, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.jobs import ENHANCE, TRAIN, TrainingEnvironment
from napari_semsr.models import devices
from tests.refusals import refused

LACKING = TrainingEnvironment(device="mps")
JOBS = {
    "enhance": lambda scan, out: ENHANCE.job(
        scan, out, options=EnhanceOptions(device="mps")
    ),
    "pairs": lambda scan, out: TRAIN.job(
        "fine-tune", out, place=LACKING, low=scan, high=scan
    ),
    "own-image": lambda scan, out: TRAIN.job(
        "own-image", out, place=LACKING, image=scan
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_device_that_is_not_here_is_refused_at_once(name, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda _kind: 0)
    path = tmp_path / "scan.tif"
    path.write_bytes(b"not an image")
    with refused(OptionError, "device-missing", match=" mps"):
        run(JOBS[name](path, tmp_path / "out.ome.zarr"))
    assert list(tmp_path.iterdir()) == [path]
