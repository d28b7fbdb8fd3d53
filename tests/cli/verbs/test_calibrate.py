import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.simulation import create_gold_rng, simulate_random_gold_pair

PITCH_NM = 300


@pytest.fixture
def grating(semsr, tmp_path):
    """One frame of a distorted scan of a grating of 300 nm."""
    said = semsr(
        "simulate", "scan", "--phantom", "grating", "--frames-grid", "1x2",
        "--frame-px", "300", "--distortion", "0.03", "--seed", "2",
    )  # fmt: skip
    assert said.code == 0, said.err
    return tmp_path / "scan" / "frame_000.tif"


@pytest.fixture
def calibration(semsr, grating, tmp_path):
    said = semsr("calibrate", str(grating), "--pitch-nm", str(PITCH_NM),
                 "-o", "c.json", "--json")  # fmt: skip
    assert said.code == 0, said.err
    return said.record, tmp_path / "c.json"


def test_a_pitch_that_contradicts_the_file_is_told(semsr, grating, calibration):
    assert calibration[0]["warnings"] == []
    said = semsr("calibrate", str(grating), "--pitch-nm", "600", "--json")
    (warned,) = said.record["warnings"]
    assert "the file states 20 nm: check the pitch" in warned


@pytest.mark.broad
def test_it_is_taken_where_a_pixel_size_is(semsr, calibration, tmp_path):
    size, error = (calibration[0][key] for key in ("pixel_size_nm", "pixel_size_sd_nm"))
    asked = ("--calibration", "c.json", "--json")
    rng = np.random.default_rng(0)
    write(Micrograph(rng.random((128, 128)).astype("float32")), tmp_path / "a.ome.tif")
    gold = simulate_random_gold_pair(128, create_gold_rng("validation", 0)).high
    write(Micrograph(gold), tmp_path / "gold.ome.tif")
    # frames of a grating fit at every period
    chip = ("--phantom", "circuit", "--frames-grid", "1x2", "--frame-px", "128")
    assert semsr("simulate", "chip", *chip, "--distortion", "0.03").code == 0
    for words in (
        ("info", "a.ome.tif"),
        ("convert", "a.ome.tif", "c.ome.tif"),
        ("frc", "a.ome.tif"),
        ("frc-map", "a.ome.tif", "-o", "map.ome.tif"),
        ("gaps", "gold.ome.tif"),
        ("spectrum", "a.ome.tif"),
        ("crop", "a.ome.tif", "--box", "0", "0", "64", "64", "-o", "b.ome.tif"),
        ("stitch", "chip", "-o", "m.ome.zarr"),
    ):
        said = semsr(*words, *asked)
        assert said.code == 0, said.err
        assert said.record["pixel_size_nm"] == size
        assert said.record["pixel_size_sd_nm"] == pytest.approx(error)
    # later steps know it from the history, until another size is stated
    about = semsr("info", "c.ome.tif", "--json").record
    assert about["pixel_size_from"] == "from a calibration"
    assert about["pixel_size_sd_nm"] == pytest.approx(error)
    later = semsr("frc", "b.ome.tif", "--json").record
    assert later["pixel_size_sd_nm"] == pytest.approx(error)
    other = semsr("frc", "b.ome.tif", "--pixel-size-nm", "10", "--json").record
    assert other["pixel_size_sd_nm"] is None


@pytest.fixture
def barred(tmp_path, rng):
    """An image with a printed bar of 118 px."""
    image = np.clip(rng.normal(120, 30, (400, 600)), 0, 255).astype(np.uint8)
    image[350:] = 0
    image[365:367, 350:470] = 255
    image[358:374, [350, 351, 468, 469]] = 255
    write(Micrograph(image), tmp_path / "barred.png")
    return tmp_path / "barred.png"


@pytest.mark.broad
def test_a_printed_bar_is_suggested_and_compared_with_the_size_of_a_file(
    semsr, barred, tmp_path
):
    record = semsr("info", str(barred), "--json").record
    assert record["suggested_bar_px"] == 118
    assert record["suggested_label"] is record["suggested_pixel_size_nm"] is None
    write(napari_semsr.read(barred, pixel_size_nm=5), tmp_path / "sized.tif")
    assert semsr("info", "sized.tif", "--json").record["suggested_bar_px"] is None
    said = semsr("calibrate", "sized.tif", "--bar", "5.9 um", "--json")
    assert "the file states 5 nm" in said.record["warnings"][0]
    said = semsr("calibrate", "sized.tif", "--bar", "0.59 um", "--json")
    assert said.record["warnings"] == []


@pytest.mark.quick(1)
@pytest.mark.parametrize("length", ["5.9um", "5,9 \u00b5m", "5900"])
def test_a_bar_with_its_length_gives_a_calibration(semsr, barred, tmp_path, length):
    said = semsr("calibrate", str(barred), "--bar", length, "-o", "b.json", "--json")
    assert said.record["pixel_size_nm"] == pytest.approx([50, 50])
    assert said.record["pixel_size_sd_nm"] == pytest.approx([50 * 2**0.5 / 118] * 2)
    opening = {"calibration": tmp_path / "b.json", "databar_rows": 50}
    found = napari_semsr.spectrum(barred, **opening)
    assert found.pixel_size_nm == pytest.approx((50, 50))
    made = napari_semsr.calibrate(barred, bar=5900)
    assert made.calibration.pixel_size_nm == pytest.approx((50, 50))
    assert napari_semsr.calibrate(barred, bar=True).calibration is None


def test_bars_are_refused_in_one_sentence(refused, barred, grating):
    assert "No printed scale bar" in refused("calibrate", str(grating), "--bar")
    for words, said in (
        (("--bar", "-3"), "must be given as '50 um'"),
        (("--bar", "1,000 nm"), "without a thousands separator"),
        (("--bar", "-o", "b.json"), "printed length of the scale bar is required"),
        (("--bar", "5 um", "--pitch-nm", "3"), "omit --pitch-nm"),
    ):
        assert said in refused("calibrate", str(barred), *words)
