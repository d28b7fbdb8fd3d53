"""What measuring commands say to a person: each reading with its error."""

import json

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter


def _saved(path, image):
    tifffile.imwrite(path, image.astype(np.float32))
    return path


@pytest.fixture
def across(rng):
    """Two lines of 6 px, 14 px apart, on noise; 120 px wide."""
    x = np.arange(120.0)
    lines = sum(np.exp(-4 * np.log(2) * ((x - at) / 6) ** 2) for at in (50, 64))
    return np.tile(10 + 100 * lines, (40, 1)) + rng.normal(0, 1, (40, 120))


def _rows(said):
    assert (said.code, said.err.count("Traceback")) == (0, 0)
    split = (line.split("  ", 1) for line in said.out.splitlines() if line.strip())
    return {cells[0].strip(): cells[-1].strip() for cells in split}


@pytest.mark.parametrize("nm", [None, 5])
def test_profile_says_lines_and_their_distance(semsr, tmp_path, across, nm):
    path = _saved(tmp_path / "lines.tif", across)
    size = () if nm is None else ("--pixel-size-nm", nm)
    said = semsr("profile", path, "--line", "20,10,20,110", "--width", 9, *size)
    rows, unit = _rows(said), "px" if nm is None else "nm"
    middle = rows["Distance, median"].split(" ")
    assert float(middle[0]) == pytest.approx(14 * (nm or 1), rel=0.03)
    assert middle[1] == unit
    _, sheet, pairs = said.out.split("\n\n")
    assert sheet.startswith(f"Lines\nline  at ({unit})")
    assert pairs.splitlines()[2].split()[:2] == ["1,", "2"]
    assert pairs.count("resolved") == 2


def test_profile_tells_no_distance_without_a_fit(semsr, tmp_path):
    x = np.indices((40, 120))[1]
    image = 1.0 * (x == 11) + np.exp(-4 * np.log(2) * ((x - 80) / 10) ** 2)
    asked = ("profile", _saved(tmp_path / "cut.tif", image), "--line", "20,10,20,110")
    said = semsr(*asked, "--pixel-size-nm", 5)
    rows = _rows(said)
    assert "Distance, median" not in rows
    assert rows["Dip undecided"] == "one of the two lines has no fit (1 of 1 pairs)"
    assert "inf" not in said.out
    found = json.loads(semsr(*asked, "--json").out)
    (pair,) = found["pairs"]
    assert (pair["distance_px"], pair["distance_interval_px"]) == (None, None)
    assert "no fit" in pair["reason"]
    assert (found["lines"][0]["place_px"], len(found["peaks_px"])) == (None, 2)


@pytest.mark.broad
def test_profile_says_edge_and_nothing(semsr, tmp_path, rng):
    step = np.where(np.arange(120) > 60, 100.0, 10.0) + rng.normal(0, 0.5, (40, 120))
    line = ("--line", "20,10,20,110", "--width", 9)
    rows = _rows(semsr("profile", _saved(tmp_path / "step.tif", step), *line))
    assert float(rows["Edge at"].split(" ")[0]) == pytest.approx(50.5, abs=1)
    assert " px (95 %: " in rows["Edge, 10 to 90 %"]
    noise = _saved(tmp_path / "noise.tif", rng.normal(100, 1, (40, 120)))
    assert "noise" in _rows(semsr("profile", noise, *line))["No reading"]


def test_decorrelation_says_the_cut_off_and_that_of_blocks(semsr, tmp_path, rng):
    q = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    white = np.fft.rfft2(rng.normal(size=(256, 256)))
    image = np.fft.irfft2(white * (q < 0.2), s=(256, 256))
    image = 100 + 30 * image / image.std() + rng.normal(0, 1, image.shape)
    path = _saved(tmp_path / "band.tif", image)
    rows = _rows(semsr("decorrelation", path, "--pixel-size-nm", 4))
    assert "nm" in rows["Cut-off"]
    blocks = _rows(semsr("decorrelation", path, "--pixel-size-nm", 4, "--block", 128))
    assert blocks["10 to 90 %"].endswith("nm")
    assert blocks["Blocks"].startswith("4 blocks of 128 px, 0 without")
    even = _saved(tmp_path / "even.tif", np.full((128, 128), 7.0))
    assert _rows(semsr("decorrelation", even))["Cut-off"][2:].startswith("(no-signal: ")


def test_gaps_print_lengths_without_exponents_and_shares_of_something(semsr, tmp_path):
    y, x = np.mgrid[:96, :96]
    discs = [(30, 24, 12), (30, 52, 14), (72, 30, 11), (72, 58, 15)]
    grey = sum(((y - a) ** 2 + (x - b) ** 2 < r**2) * 1.0 for a, b, r in discs)
    image, other = (
        _saved(tmp_path / f"{name}.tif", gaussian_filter(values, 1))
        for name, values in (("image", grey), ("other", np.maximum(grey, y > 90)))
    )
    rows = _rows(semsr("gaps", image, other, "--pixel-size-nm", 150))
    low, high = rows["Diameters, 10 to 90 %"].removesuffix(" nm").split(" to ")
    assert low.isdecimal()
    assert high.isdecimal()
    assert "Invented share of its gaps" in rows


@pytest.mark.broad
def test_what_light_carried_is_told_apart(semsr, refused, tmp_path, rng):
    truth = rng.normal(0, 1, (96, 96))
    image, reference = (
        _saved(tmp_path / f"{name}.tif", truth + rng.normal(0, sd, truth.shape))
        for name, sd in (("image", 0.2), ("truth", 0))
    )
    how = ("--pixel-size-nm", 10, "--cut-off-nm", 153)
    rows = _rows(semsr("metrics", image, reference, *how))
    assert rows["Optical cut-off"] == "153 nm"
    assert rows["PSNR below the optical cut-off"].endswith(" dB")
    rows = _rows(semsr("frc", image, reference, "--reference", *how))
    assert rows["Mean FRC below it"].startswith("0.9")
    wrong = (*how[:3], 0.153)
    said = "Option --cut-off-nm must be at least 10"
    assert said in refused("metrics", image, reference, *wrong)


@pytest.mark.parametrize(
    ("verb", "large"), [("frc", "Resolution"), ("frc-map", "Median")]
)
def test_a_resolution_beyond_the_cut_off_is_told(semsr, tmp_path, rng, verb, large):
    truth = 4 * gaussian_filter(rng.normal(size=(128, 128)), 2)
    pair = [
        _saved(tmp_path / f"{name}.tif", truth + rng.normal(0, 0.3, truth.shape))
        for name in "ab"
    ]
    out = ("-o", tmp_path / "map.tif") if verb == "frc-map" else ()
    asked = (verb, *pair, *out, "--pixel-size-nm", 5, "--cut-off-nm", 153)
    said = semsr(*asked)
    rows = _rows(said)
    assert rows[large].endswith("finer than the optical cut-off of 153 nm")
    assert "finer than the optical cut-off of 153 nm" in rows["Note"]
    assert "finer than the optical cut-off of 153 nm" in said.err
    found = json.loads(semsr(*asked, *(("--overwrite",) if out else ()), "--json").out)
    assert found["cut_off_nm"] == 153
    assert any("finer than the optical cut-off" in one for one in found["warnings"])


def test_a_clipped_line_ends_in_one_sentence(semsr, tmp_path):
    x = np.indices((40, 128))[1]
    bell = 40 + 400 * np.exp(-4 * np.log(2) * ((x - 60) / 20.0) ** 2)
    path = _saved(tmp_path / "white.tif", np.clip(bell, 0, 255).astype(np.uint8))
    said = semsr("profile", path, "--line", "20,10,20,110", "--json")
    assert said.code == 2
    assert said.record["code"] == "clipped"
    assert "the profile is clipped" in said.err
    assert "Traceback" not in said.err
