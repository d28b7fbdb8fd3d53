import html
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.cli.command import load_verb
from napari_semsr.core.errors import CheckpointError, OptionError, WriteError
from napari_semsr.core.grids import Grid
from napari_semsr.core.progress import run
from napari_semsr.demonstration.fields import WIENER
from napari_semsr.demonstration.job import DEMO, DemoOptions, DemoResult, demo_paths
from napari_semsr.demonstration.runs import LINEAR, TUNED
from napari_semsr.io.formats import describe, read
from napari_semsr.jobs.simulate import SimulateOptions
from napari_semsr.models.cards import read_card
from tests import children

PARTS = """\
In short|From frames to a mosaic|Raw frames
Nominal and solved positions|How far to trust the joints|Resolution of the mosaic
Where the mosaic is resolved|Spectra of the mosaic
The mosaic and an electron image of the same place
Registered|Fine-tuned on one half|The other half, enhanced
Agreement with the SEM image|Where they agree|Spectra of the half that judges
Against the SEM image|An electron image, restored|Before and after
Resolution|Radial spectra|Nearness to the truth
Open it in napari|Provenance"""
# a network of two steps draws what light did not carry, and the map of it says so
pytestmark = pytest.mark.filterwarnings("ignore:The .* the optical cut-off of")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> DemoResult:
    """The demonstration of small frames and a small field."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    small = DemoOptions(size=192, frame_px=144, steps=2, registration="affine")
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
    paths = demo_paths(Path(shown.report).parent)
    assert all(path.exists() for path in paths.values())
    for name in ("mosaic", "mosaic_again", "mosaic_truth", "place_mosaic", "place_sem"):
        assert describe(paths[name]).pixel_size_nm == (20, 20)
    for name in ("sem_truth", "sem_first", "sem_baseline", "sem_enhanced"):
        assert describe(paths[name]).pixel_size_nm == (10, 10)
    assert describe(paths["place_tuned_against_sem"]).pixel_size_nm == (320, 320)
    assert describe(paths["sem_enhanced_against_truth"]).pixel_size_nm == (160, 160)


@pytest.mark.broad
def test_demo_enhances_by_tiles_and_says_of_what(shown):
    sources = {
        "place_enhanced": "mosaic.ome.zarr",
        "place_tuned": "mosaic.ome.zarr",
        "sem_enhanced": "exposure-1.tif",
    }
    for role, source in sources.items():
        made = read(demo_paths(Path(shown.report).parent)[role]).provenance
        assert made is not None
        assert made.inputs[0].name == source
    for half in ("place", "electron_image"):
        assert shown.figures[half]["enhance"]["tiles"] >= 2


@pytest.mark.broad
def test_demo_lays_all_images_of_the_place_on_one_grid(shown):
    paths = demo_paths(Path(shown.report).parent)
    roles = ("mosaic", "sem", "enhanced", "tuned", "linear", "wiener")
    grids = {
        (image.shape, image.pixel_size_nm, image.origin)
        for image in (read(paths[f"place_{role}"]) for role in roles)
    }
    assert len(grids) == 1


@pytest.mark.broad
def test_demo_judges_where_nothing_was_learnt_from(shown):
    """Both in nm of the electron image's plane, and in the model's own card."""
    place = shown.place
    learnt = read_card(Path(place.trained.model)).training["learnt_from"]
    areas = [
        area
        for item in learnt
        if item["name"] == "sem.ome.tif"
        for area in item["areas"]
    ]
    assert areas
    judged = Grid.of(place.measured.aim.image)
    for y0, x0, y1, x1 in areas:
        apart_y = y1 <= judged.corner[0] or y0 >= judged.end[0]
        assert apart_y or x1 <= judged.corner[1] or x0 >= judged.end[1]
    assert place.apart_px > 0


@pytest.mark.broad
def test_demo_tells_the_error_of_its_map_beside_the_true_one(shown):
    found = shown.figures["place"]["registration"]
    assert found["model"] == "affine"
    assert 0 < found["true_error_nm"] < 20  # less than a pixel; it knows no bending
    assert 0 < found["error_nm"] < 20
    degrees = SimulateOptions().view_turn_deg
    assert found["transform"]["degrees"] == pytest.approx(-degrees, abs=0.5)


@pytest.mark.broad
def test_demo_compares_the_networks_with_a_linear_filter(shown):
    place = shown.figures["place"]
    gains, names = place["gain_db"], (WIENER, LINEAR, "ssum-sem", TUNED)
    assert tuple(gains) == names
    assert gains["ssum-sem"] > gains[LINEAR] > gains[WIENER]
    kept = place["training"]["kept"]
    assert kept == (gains[TUNED] != gains["ssum-sem"])
    assert all(error > 0 for error in place["gain_sd_db"].values())


@pytest.mark.broad
def test_demo_places_every_frame_near_its_truth(shown):
    scan = shown.figures["scan"]
    assert scan["placed"] == scan["frames"] == 20
    assert scan["solved_error_px"] < 0.1
    assert scan["nominal_error_px"] > 50 * scan["solved_error_px"]


@pytest.mark.broad
def test_demo_truth_lies_under_the_mosaic(shown):
    measured = shown.scan.measured
    truth, mosaic = (v.image.array() for v in (measured.aim, measured.before))
    assert truth.shape == mosaic.shape
    assert measured.aim.image.origin == measured.before.image.origin
    spectra = [np.fft.fft2(image - image.mean()) for image in (truth, mosaic)]
    peak = np.fft.ifft2(spectra[0] * spectra[1].conj()).real.argmax()
    assert peak == 0


@pytest.mark.broad
def test_demo_figures_are_json_and_agree_between_two_ways(shown):
    figures = json.loads(
        (Path(shown.report).parent / "figures.json").read_text(encoding="utf-8")
    )
    taken = (("mosaic", "Mosaic"), ("electron_image", "Degraded input"))
    for half, label in taken:
        pair = figures[half]["two_exposures"]["resolution_nm"]
        cross = figures[half]["versions_of_the_field"][label]["resolution_nm"]
        assert cross == pytest.approx(pair, rel=0.15)


def test_demo_refuses_before_any_work(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(WriteError, match="not empty"):
        run(DEMO.job(folder=tmp_path))
    with pytest.raises(CheckpointError, match="nobody"):
        run(DEMO.job(folder=tmp_path / "new", options=DemoOptions(model="nobody")))
    with pytest.raises(OptionError, match="2 times as small"):
        run(DEMO.job(folder=tmp_path / "new", options=DemoOptions(model="sem-2x")))
    assert not (tmp_path / "new").exists()


def test_demo_refuses_what_is_in_its_way(tmp_path):
    (tmp_path / "mosaic").write_text("mine")
    with pytest.raises(WriteError, match="mosaic cannot be made a folder"):
        run(DEMO.job(folder=tmp_path, overwrite=True))
    assert (tmp_path / "mosaic").read_text() == "mine"
    other = tmp_path / "other"
    (other / "figures.json").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"figures\.json is a folder"):
        run(DEMO.job(folder=other, overwrite=True))


def test_demo_leaves_a_stranger_scan_alone(tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "frame_000.tif").write_text("mine")
    with pytest.raises(WriteError, match="not replaced"):
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
    said = load_verb("demo").summarise(shown)
    page = html.unescape(Path(shown.report).read_text("utf-8"))
    lines = re.findall(r"napari --[^<\n]+", f"{said}\n{page}")
    assert len(lines) == 5
    for line in lines:
        _, option, plugin, *paths = shlex.split(line)
        assert (option, plugin) == ("--plugin", "napari-semsr")
        assert paths
        assert all(Path(path).exists() for path in paths)
