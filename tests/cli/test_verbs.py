import numpy as np
import pytest
import tifffile

from napari_semsr.io.formats import read

KEYS = {
    "info": "shape dtype pixel_size_nm vendor levels databar_rows metadata",
    "convert": "shape pixel_size_nm",
    "degrade": "kind parameters",
    "enhance": (
        "tiles seconds megapixels_per_second peak_memory_mb device model norm "
        "tile_mismatch seam_index output"
    ),
    "restore": "method parameters",
    "pairs": "train validation test",
    "register": (
        "model mutual_information_before mutual_information_after transform error_px "
        "error_nm overlap searched score rivals unreliable residual_median_nm"
    ),
    "frc": (
        "resolution_nm resolution_px criterion method reason frequency_per_px "
        "correlation"
    ),
    "frc-map": "blocks failed median_nm p10_nm p90_nm reasons",
    "decorrelation": "resolution_nm resolution_px reason method blocks failed",
    "error-map": "rse rsp sigma_px alpha beta rse_percent shift_px output",
    "spectrum": "frequency_per_px power centred",
    "metrics": (
        "psnr_db ssim nrmse average_gradient contrast spatial_frequency data_range "
        "bins counts reference_counts emd mean sd median lowest highest"
    ),
    "gaps": (
        "gaps detected undetected_fraction undetected_interval invented "
        "mean_width_error_nm mean_width_error_interval_nm widths_nm diameters_nm "
        "histogram rows table seed"
    ),
    "figure": "path pixel_size_nm shape caption networks",
    "replay": "identical max_abs_difference differs output job pixels different where",
    "profile": "distance_nm intensity fwhm_nm peaks_nm lines pairs edge reason",
}
LINES = {
    "info": ("first.tif",),
    "convert": ("first.tif", "out.ome.zarr"),
    "degrade": ("first.tif", "out.tif", "--kind", "fog"),
    "enhance": ("first.tif", "-o", "out.ome.zarr", "--device", "cpu"),
    "restore": ("first.tif", "-o", "out.ome.tif", "--psf", "1px"),
    "pairs": ("first.tif", "truth.tif", "-o", "out.zarr", "--patch", "32"),
    "register": (
        *("first.tif", "truth.tif", "-o", "out.tif"),
        *("--landmarks", "landmarks.csv", "--landmarks-only"),
    ),
    "frc": ("first.tif", "second.tif"),
    "frc-map": ("first.tif", "second.tif", "-o", "out.ome.tif"),
    "decorrelation": ("first.tif",),
    "error-map": ("first.tif", "second.tif", "-o", "out.ome.tif"),
    "spectrum": ("first.tif", "-o", "out.ome.tif"),
    "metrics": ("first.tif", "truth.tif"),
    "gaps": ("first.tif", "truth.tif", "--table", "out.csv"),
    "profile": ("first.tif", "--line", "10,10,60,80"),
    "figure": ("first.tif", "truth.tif", "-o", "out.png"),
    "replay": ("made.tif",),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("verb", KEYS)
def test_json_has_the_keys_of_the_contract_and_the_summary_is_text(
    semsr, refused, images, verb
):
    line = (verb, *LINES[verb])
    said = semsr(*line, "--json")
    assert said.code == 0, said.err
    assert set(KEYS[verb].split()) <= set(said.record)
    if "out." in str(line):
        assert "--overwrite" in refused(*line)
        line = (*line, "--overwrite")
    said = semsr(*line)
    assert said.code == 0, said.err
    assert said.out.strip()[0] not in "{["


def test_pages_that_a_tiff_lacks_are_warned_of(semsr, tmp_path):
    stated = {"description": "ImageJ=1.53t\nimages=9\nframes=9\n", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", np.eye(24, dtype=np.uint8), **stated)
    for words in (("info", "a.tif"), ("convert", "a.tif", "out.tif")):
        found = semsr(*words, "--json").record
        assert found["warning_codes"] == ["partly-understood"]


@pytest.mark.usefixtures("images")
def test_output_that_cannot_be_is_refused(refused):
    for words, needs in (
        (("out.xyz",), ".ome.zarr"),
        (("missing/out.tif",), "does not exist"),
        (("first.tif", "--overwrite"), "is also the input;"),
        (("./folder/../first.tif",), "is also the input;"),
        (("folder",), ".ome.zarr"),
    ):
        assert needs in refused("convert", "first.tif", *words)


def test_spectrum_writes_picture_or_table(semsr, images):
    picture = semsr("spectrum", "first.tif", "-o", "out.ome.tif", "--json").record
    assert picture["centred"] == "out.ome.tif"
    assert read(images / "out.ome.tif").shape == (96, 128)
    table = semsr("spectrum", "first.tif", "-o", "out.csv", "--json").record
    lines = (images / "out.csv").read_text().splitlines()
    assert lines[0] == "frequency_per_px,frequency_per_um,power"
    assert len(lines) == 1 + len(table["power"])
