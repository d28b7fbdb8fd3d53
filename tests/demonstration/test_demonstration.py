import html
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.cli.command import load_command
from napari_semsr.core.errors import SemsrError, WriteError
from napari_semsr.core.grids import Grid
from napari_semsr.core.progress import run
from napari_semsr.demonstration import job
from napari_semsr.demonstration.job import DEMO, DemoOptions, DemoResult, get_demo_paths
from napari_semsr.demonstration.runs import create_demo_plan, create_scan_options
from napari_semsr.io.formats import describe, read
from napari_semsr.jobs import ADAPTED_MODEL, AdaptationError
from napari_semsr.jobs.adapt import train as adapting
from napari_semsr.jobs.adapt.process import fit_with_files
from tests import children
from tests.refusals import refused

PARTS = """\
In short|From frames to a mosaic|Raw frames
Nominal and solved positions|Reliability of the overlaps|Resolution of the mosaic
A network for this sample|Registered and divided|The held-out part
Where the model must not be used|Another relief
An SEM image, restored|Before and after
Open it in napari|Provenance"""
# a network of two steps draws what light did not carry, and the map of it says so
pytestmark = pytest.mark.filterwarnings("ignore:.* differs from the area that")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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
        small = DemoOptions(frame_px=144)
        patch.setattr(adapting, "fit_in_process", two_steps)
        return run(DEMO.job(folder=folder, options=small))


@pytest.mark.broad
def test_demo_writes_a_page_with_all_parts(shown):
    text = Path(shown.report).read_text(encoding="utf-8")
    for part in re.split(r"[|\n]", PARTS):
        assert f">{part}<" in text
    assert "http://" not in text
    assert "https://" not in text
    words = re.sub(r"base64,[^\"]+", "", text)
    assert not re.search(r"\b(nan|inf|None)\b", words)


@pytest.mark.broad
def test_demo_writes_every_file_that_it_names(shown):
    paths = get_demo_paths(Path(shown.report).parent)
    assert all(path.exists() for path in paths.values())
    for name in ("mosaic", "mosaic_truth", "place_sem", "elsewhere", "elsewhere_sem"):
        assert describe(paths[name]).pixel_size_nm == (20, 20)
    for name in ("sem_truth", "sem_first", "sem_enhanced"):
        assert describe(paths[name]).pixel_size_nm == (10, 10)
    assert Path(shown.enhanced).exists()
    assert Path(shown.model).is_file()
    named = r"mosaic-\d{4}-\d\d-\d\d\.safetensors"
    assert re.fullmatch(named, Path(shown.model).name)


@pytest.mark.broad
def test_demo_lays_the_sem_image_on_the_mosaic(shown):
    mosaic, sem, enhanced = map(read, (shown.mosaic, shown.place_sem, shown.enhanced))
    assert mosaic.shape == enhanced.shape
    corner = (np.array(sem.origin) - mosaic.origin) / mosaic.scale
    y, x = np.rint(corner).astype(int)
    np.testing.assert_allclose(corner, (y, x), atol=1e-6)
    light = mosaic.array()[y : y + sem.shape[0], x : x + sem.shape[1]]
    assert np.corrcoef(light.ravel(), sem.array().ravel())[0, 1] > 0.3


@pytest.mark.broad
def test_demo_compares_the_model_at_its_place_and_elsewhere(shown):
    place, other = shown.figures["adapt"], shown.figures["elsewhere"]
    names = ["input", "linear filter", "ssum-sem", ADAPTED_MODEL]
    assert list(place["evaluated"]) == names
    below = "gain_below_cutoff_db"
    gains = {name: found[below] for name, found in place["evaluated"].items()}
    assert gains["ssum-sem"] > 1
    assert list(other["versions"]) == ["mosaic", "ssum-sem", ADAPTED_MODEL]
    assert other["versions"]["mosaic"][below] == 0
    assert other["unfamiliar_percent"] == place["applied"][1]["unfamiliar_percent"]
    assert other["unfamiliar_percent"] > 50


@pytest.mark.broad
def test_demo_truth_of_the_other_sample_is_below_its_mosaic(shown):
    paths = get_demo_paths(Path(shown.report).parent)
    sem, mosaic = read(paths["elsewhere_sem"]), read(paths["elsewhere"])
    grid = Grid.from_image(mosaic)
    corner = (np.array(Grid.from_image(sem).corner) - grid.corner) / grid.pitch
    y, x = np.rint(corner).astype(int)
    light = mosaic.array()[y : y + sem.shape[0], x : x + sem.shape[1]]
    # edges of both, whose contrast may be inverted
    edges = [np.hypot(*np.gradient(one.astype(float))) for one in (light, sem.array())]
    spectra = [np.fft.fft2(one - one.mean()) for one in edges]
    peak = np.fft.ifft2(spectra[0] * spectra[1].conj()).real.argmax()
    lag = np.array(np.unravel_index(peak, sem.shape))
    assert np.minimum(lag, sem.shape - lag).max() <= 2


@pytest.mark.broad
def test_demo_places_every_frame_near_its_truth(shown):
    scan = shown.figures["scan"]
    assert scan["placed"] == scan["frames"] == 20
    assert {"solved", "resolved"} <= shown.to_json().keys()
    assert scan["solved_error_px"] < 0.1
    assert scan["nominal_error_px"] > 50 * scan["solved_error_px"]


@pytest.mark.broad
def test_demo_figures_are_json_and_agree_between_two_ways(shown):
    figures = json.loads(
        (Path(shown.report).parent / "figures.json").read_text(encoding="utf-8")
    )
    found = figures["mosaic"]
    halves, truth = (found[name]["resolution_nm"] for name in ("halves", "truth"))
    assert truth == pytest.approx(halves, rel=0.15)


@pytest.mark.broad
def test_demo_calls_no_agreement_with_sem_a_resolution(shown):
    """A network's agreement beyond the optical cut-off was guessed."""
    said = load_command("demo").summarise(shown)
    assert re.findall(r"[\d.]+ nm", said) == re.findall(r"resolves +([\d.]+ nm)", said)


def test_demo_trains_longer_only_where_a_training_gains_nothing(tmp_path, monkeypatch):
    minutes = []

    def refuse(plan, folder, results):
        (adapt,) = (call for call in plan.calls if call.verb == "adapt")
        minutes.append(adapt.options["minutes"])
        raise AdaptationError(
            "No.", "no-gain" if len(minutes) < 3 else "not-registered"
        )
        yield

    monkeypatch.setattr(job, "execute", refuse)
    with refused(SemsrError, "not-registered"):
        run(DEMO.job(folder=tmp_path / "out"))
    assert minutes == [1, 2, 4]


@pytest.mark.broad
def test_demo_in_its_own_folder_runs_only_what_has_no_result(shown, monkeypatch):
    folder, seen = Path(shown.report).parent, set()
    (folder / "sem" / "exposure-2.tif").unlink()
    (folder / "report.html").unlink()
    monkeypatch.setattr(adapting, "fit_in_process", None)
    again = DEMO.job(folder=folder, options=DemoOptions(frame_px=144))
    steps = {
        call.name
        for call in create_demo_plan(create_scan_options(frame_px=144, seed=0)).calls
    }
    found = run(again, lambda step: seen.add(step.message.partition(": ")[::2]))
    assert {name for name, work in seen if work and name in steps} == {"sem_second"}
    assert found.figures == shown.figures
    assert Path(found.report).is_file()


def test_demo_refuses_before_any_work(tmp_path):
    (tmp_path / "mine.txt").touch()
    with refused(WriteError, "output-exists"):
        run(DEMO.job(folder=tmp_path))


def test_demo_refuses_what_is_in_its_way(tmp_path):
    (tmp_path / "mosaic").write_text("mine")
    with refused(WriteError, "not-writable", match="mosaic"):
        run(DEMO.job(folder=tmp_path, overwrite=True))
    assert (tmp_path / "mosaic").read_text() == "mine"
    other = tmp_path / "other"
    (other / "figures.json").mkdir(parents=True)
    with refused(WriteError, "output-is-folder"):
        run(DEMO.job(folder=other, overwrite=True))


def test_demo_leaves_a_stranger_scan_alone(tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "frame_000.tif").write_text("mine")
    with refused(WriteError, "foreign-files"):
        run(DEMO.job(folder=tmp_path, overwrite=True))
    assert (tmp_path / "scan" / "frame_000.tif").read_text() == "mine"


@pytest.mark.broad
def test_demo_page_opens_in_a_browser_without_a_fault(shown, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs Chromium")
    shot = tmp_path / "page.png"
    line = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging"),
        *("--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"),
        *("--window-size=420,2400", f"--screenshot={shot}"),
        Path(shown.report).as_uri(),
    ]
    done = children.run(line)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    assert shot.stat().st_size > 20_000


@pytest.mark.broad
def test_commands_for_napari_name_images_and_no_panel(shown):
    """After ``--with`` napari takes the first path for the name of a panel."""
    said = load_command("demo").summarise(shown)
    page = html.unescape(Path(shown.report).read_text("utf-8"))
    lines = re.findall(r"napari --[^<\n]+", f"{said}\n{page}")
    assert len(lines) == 5
    for line in lines:
        _, option, plugin, *paths = shlex.split(line)
        assert (option, plugin) == ("--plugin", "napari-semsr")
        assert paths
        assert all(Path(path).exists() for path in paths)
