import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from napari_semsr.core.errors import CheckpointError, WriteError
from napari_semsr.core.progress import run
from napari_semsr.io.registry import describe, read
from napari_semsr.services.demo import DemoOptions, DemoResult, demo

PARTS = (
    "Before and after",
    "Resolution",
    "Radial spectra",
    "Nearness to the truth",
    "Provenance",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> DemoResult:
    """The demonstration of a small field."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return run(demo(folder, options=DemoOptions(size=192)))


def test_demo_writes_a_page_with_all_parts(shown):
    text = Path(shown.report).read_text(encoding="utf-8")
    for part in PARTS:
        assert f">{part}<" in text
    assert "http://" not in text
    assert "https://" not in text
    words = re.sub(r"base64,[^\"]+", "", text)
    assert not re.search(r"\b(nan|inf|None)\b", words)


def test_demo_pictures_are_pngs_with_words(shown):
    text = Path(shown.report).read_text(encoding="utf-8")
    pictures = re.findall(
        r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]+)"', text
    )
    assert len(pictures) == text.count("<img") >= 15
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data, _ in pictures)


def test_demo_images_are_calibrated(shown):
    folder = Path(shown.report).parent
    for name in ("truth.tif", "exposure-1.tif", "wiener.tif", "enhanced.ome.zarr"):
        assert describe(folder / name).pixel_size_nm == (10, 10)
    assert describe(folder / "frc-map-after.ome.tif").pixel_size_nm == (160, 160)


def test_demo_enhances_by_tiles_and_says_so(shown):
    assert shown.figures["enhance"]["tiles"] >= 2
    made = read(shown.enhanced).provenance
    assert made is not None
    assert made.inputs[0].name == "exposure-1.tif"


def test_demo_figures_are_json_and_agree_between_two_ways(shown):
    figures = json.loads(
        (Path(shown.report).parent / "figures.json").read_text(encoding="utf-8")
    )
    pair = figures["two_exposures"]["resolution_nm"]
    cross = figures["versions_of_the_field"]["Degraded input"]["resolution_nm"]
    assert cross == pytest.approx(pair, rel=0.15)


def test_demo_refuses_before_any_work(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(WriteError, match="not empty"):
        run(demo(tmp_path))
    with pytest.raises(CheckpointError, match="nobody"):
        run(demo(tmp_path / "new", options=DemoOptions(model="nobody")))
    assert not (tmp_path / "new").exists()


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
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    assert shot.stat().st_size > 20_000
