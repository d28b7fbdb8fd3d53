"""A device that is not here is refused before anything is read."""

import pytest

from napari_semsr.core import OptionError, run
from napari_semsr.jobs.train import TRAIN, TrainingEnvironment
from napari_semsr.models import devices
from tests.refusals import refused


@pytest.fixture(autouse=True)
def without_cards(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda _kind: 0)


@pytest.fixture
def unreadable(tmp_path):
    path = tmp_path / "scan.tif"
    path.write_bytes(b"not an image")
    return path


def check_refusal(job, folder, code="device-missing", device="mps"):
    with refused(OptionError, code, match=f" {device}"):
        run(job)
    assert [path.name for path in folder.iterdir()] == ["scan.tif"]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ({"device": "mps"}, "device-missing"),
        ({"device": "mps", "devices": 2}, "device-unsuitable"),
        ({"device": "cuda", "devices": 2}, "device-missing"),
    ],
)
@pytest.mark.parametrize("images", [("low", "high"), ("image",)])
def test_train_refuses_before_pairs_are_cut(images, place, code, unreadable, tmp_path):
    recipe = "fine-tune" if "low" in images else "own-image"
    job = TRAIN.job(
        recipe,
        tmp_path / "run",
        place=TrainingEnvironment(**place),
        **dict.fromkeys(images, unreadable),
    )
    check_refusal(job, tmp_path, code, place["device"])
