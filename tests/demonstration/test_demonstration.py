import html
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.cli.command import load_command
from napari_semsr.core import SemsrError, WriteError, run
from napari_semsr.demonstration import DemoOptions, DemoResult, demo, job
from napari_semsr.io import describe, read
from napari_semsr.jobs import AdaptationError
from napari_semsr.jobs.adapt import train as adapting
from napari_semsr.jobs.adapt.process import fit_with_files
from tests.refusals import refused

SMALL = DemoOptions(frame_px=144)
# a network of two steps draws what light did not carry, and the map of it says so
pytestmark = pytest.mark.filterwarnings("ignore:.* differs from the area that")


def two_steps(images, options, *, seconds, threads, **how):
    """Train for two steps in place of a minute."""
    small = options.replace(copies=0, batch=1, patch_px=32)
    return fit_with_files(
        images, small, seconds=None, steps=2, threads=1, report_every_s=0.0, **how
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> DemoResult:
    """The demonstration of small frames; its model is kept whatever it gains."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "require_gain", lambda found, name: None)
        patch.setattr(adapting, "fit_in_process", two_steps)
        return run(demo.job(folder=folder, options=SMALL))


@pytest.mark.broad
def test_demo_writes_a_page_with_all_parts(shown):
    text = Path(shown.report).read_text(encoding="utf-8")
    for part in ("In short", "The held-out part", "Images", "Steps", "Provenance"):
        assert f">{part}<" in text
    words = re.sub(r"base64,[^\"]+", "", text)
    assert not re.search(r"https?://|\b(nan|inf|None)\b", words)


@pytest.mark.broad
def test_demo_writes_every_file_that_it_names(shown):
    sizes = {
        name: describe(Path(path)).pixel_size_nm
        for name, path in shown.images.items()
        if not path.endswith(".png")
    }
    fine = {"specimen", "SEM image", "sem-restore", "its SEM image"}
    assert {name for name, size in sizes.items() if size != (20, 20)} == fine
    light, electrons, enhanced = (
        read(shown.images[name]).array()
        for name in ("mosaic", "SEM image of a part", "enhanced")
    )
    assert light.shape == electrons.shape == enhanced.shape
    both = np.isfinite(light) & np.isfinite(electrons)
    assert np.corrcoef(light[both], electrons[both])[0, 1] > 0.3


@pytest.mark.broad
def test_demo_places_every_frame_near_its_truth(shown):
    found = shown.figures()
    assert found["Frames placed"].value == "20 of 20"
    solved = found["Error of solved positions"].value
    assert solved < 0.1
    assert found["Error of nominal positions"].value > 50 * solved


def test_demo_trains_longer_only_where_a_training_gains_nothing(tmp_path, monkeypatch):
    minutes = []

    def refuse(step, start, *, again):
        if step.name == "adapt":
            minutes.append(step.options["minutes"])
            reason = "no-gain" if len(minutes) < 3 else "not-registered"
            raise AdaptationError("No.", reason)
        return None, None
        yield

    monkeypatch.setattr(job.jobs, "run_step", refuse)
    with refused(SemsrError, "not-registered"):
        run(demo.job(folder=tmp_path / "out"))
    assert minutes == [1, 2, 4]


@pytest.mark.broad
def test_demo_in_its_own_folder_runs_only_what_has_no_result(shown, monkeypatch):
    shutil.rmtree(shown.images["sem-restore"])
    Path(shown.report).unlink()
    monkeypatch.setattr(adapting, "fit_in_process", None)
    folder = Path(shown.report).parent
    found = run(demo.job(folder=folder, options=SMALL))
    assert [*found.steps] == ["sem-restore", "figure"]
    assert found.shown == shown.shown
    assert Path(found.report).is_file()
    assert run(demo.job(folder=folder, options=SMALL)).steps == {}


def test_demo_leaves_files_of_others_alone(tmp_path):
    frame = tmp_path / "scan" / "frame_000.tif"
    frame.parent.mkdir()
    frame.write_text("mine")
    with refused(WriteError, "output-exists"):
        run(demo.job(folder=tmp_path))
    with refused(WriteError, "foreign-files"):
        run(demo.job(folder=tmp_path, overwrite=True))
    assert frame.read_text() == "mine"


@pytest.mark.broad
def test_commands_for_napari_name_images_and_no_panel(shown):
    """After ``--with`` napari takes the first path for the name of a panel."""
    said = load_command("demo").summarise(shown)
    page = html.unescape(Path(shown.report).read_text("utf-8"))
    lines = re.findall(r"napari --[^<\n]+", f"{said}\n{page}")
    assert len(lines) == 2
    for line in lines:
        _, option, plugin, *paths = shlex.split(line)
        assert (option, plugin) == ("--plugin", "napari-semsr")
        assert all(Path(path).exists() for path in paths or [""])
