"""A device that is not here is refused before anything is read."""

import pytest

from napari_semsr.core import Micrograph, OptionError, run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.jobs import BATCH, ENHANCE, JUDGE
from napari_semsr.jobs.train import TRAIN, PairRequest, TrainingEnvironment
from napari_semsr.jobs.train_process import TrainRequest, train_and_import
from napari_semsr.models import devices


@pytest.fixture(autouse=True)
def without_cards(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda _kind: 0)


@pytest.fixture
def unreadable(tmp_path):
    path = tmp_path / "scan.tif"
    path.write_bytes(b"not an image")
    return path


def refused(job, folder, words="Device mps needs an Apple GPU"):
    with pytest.raises(OptionError, match=words):
        run(job)
    assert [path.name for path in folder.iterdir()] == ["scan.tif"]


def test_enhance(unreadable, tmp_path):
    options = EnhanceOptions(device="mps")
    refused(
        ENHANCE.job(unreadable, tmp_path / "out.ome.tif", options=options), tmp_path
    )


def test_judge_refuses_that_of_the_models_it_runs(unreadable, tmp_path):
    enhancing = EnhanceOptions(device="mps")
    page = tmp_path / "page.html"
    refused(JUDGE.job(unreadable, unreadable, page, enhancing=enhancing), tmp_path)


def test_batch(unreadable, tmp_path):
    steps = {
        "inputs": str(unreadable),
        "output": str(tmp_path / "out"),
        "steps": [{"enhance": {"device": "mps"}}],
    }
    refused(BATCH.job(steps), tmp_path)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"device": "mps"}, "Device mps needs an Apple GPU"),
        ({"device": "mps", "devices": 2}, "several devices needs cpu or cuda, got mps"),
        ({"device": "cuda", "devices": 2}, "Device cuda needs an NVIDIA"),
    ],
)
@pytest.mark.parametrize("images", [("low", "high"), ("image",)])
def test_train_refuses_before_pairs_are_cut(images, place, words, unreadable, tmp_path):
    recipe = "fine-tune" if "low" in images else "own-image"
    job = TRAIN.job(
        recipe,
        tmp_path / "run",
        place=TrainingEnvironment(**place),
        **dict.fromkeys(images, unreadable),
    )
    refused(job, tmp_path, words)


@pytest.mark.parametrize("device", ["mps"])
def test_panel_refuses_before_pairs_are_cut(device, unreadable, tmp_path):
    layers = [Micrograph.__new__(Micrograph)] * 2  # nothing of them may be looked at
    request = TrainRequest("fine-tune", str(tmp_path / "run"))
    job = train_and_import(request, PairRequest(*layers), device=device)
    refused(job, tmp_path, "Device mps needs")
