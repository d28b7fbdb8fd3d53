"""A folder, a glob or a table in place of an image, for every measuring verb."""

import csv
import shutil

import pytest

ONE = ("decorrelation", "spectrum", "metrics", "frc", "frc-map", "gaps")


@pytest.fixture
def low(images):
    """Folders of two images each, and a table of the pairs."""
    for folder, name in (("low", "first"), ("high", "second")):
        (images / folder).mkdir()
        for number in (1, 2):
            shutil.copy(images / f"{name}.tif", images / folder / f"{number}.tif")
    lines = [f"low/{n}.tif,high/{n}.tif" for n in (1, 2)]
    for name, header in (
        ("pairs.csv", "image,reference"),
        ("fitted.csv", "reference,enhanced"),
    ):
        (images / name).write_text("\n".join((header, *lines)) + "\n")
    return images / "low"


@pytest.mark.quick(2)
@pytest.mark.parametrize("verb", ONE)
def test_folder_gives_a_row_an_image(semsr, low, verb):
    more = ("--block", "64") if verb == "frc-map" else ()
    said = semsr(verb, "low", "--table", "out.csv", "--json", *more)
    assert said.code == 0, said.err
    assert said.record["measure"] == verb
    with (low.parent / "out.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["image"] for row in rows] == ["low/1.tif", "low/2.tif"]
    assert [row["error"] for row in rows] == ["", ""]


def test_summary_says_mean_and_deviation_and_what_failed(semsr, low):
    (low / "3.tif").write_text("no image")
    said = semsr("metrics", "low", "--table", "out.csv")
    assert said.code == 0
    assert "3: 2 measured, 1 failed" in said.out
    assert "contrast" in said.out
    assert "+-" in said.out or "(of 2)" in said.out
    assert "low/3.tif" in said.out
    assert "1 of 3 images could not be measured" in said.err


def test_options_reach_every_image(semsr, low):
    plain = semsr("metrics", "low", "high", "--json").record
    given = semsr("metrics", "low", "high", "--data-range", "9", "--json").record
    assert {row["data_range_grey"] for row in given["rows"]} == {9}
    assert given["rows"][0]["psnr_db"] != plain["rows"][0]["psnr_db"]
    sized = semsr("frc", "low", "high", "--pixel-size-nm", "3", "--json").record
    assert {row["pixel_size_y_nm"] for row in sized["rows"]} == {3}


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (("metrics", "nothing*.tif"), "No file matches"),
        (("metrics", "folder"), "empty folder"),
        (("metrics", "fitted.csv"), "column image"),
        (("error-map", "pairs.csv"), None),
        (("error-map", "low"), "must have 2 images"),
        (("error-map", "low/1.tif", "-o", "out.tif"), "enhanced is missing"),
        (("frc-map", "low/1.tif"), "-o"),
        (("frc-map", "low", "-o", "out.tif"), "--table"),
        (("spectrum", "low", "-o", "out.csv"), "--table"),
        (("metrics", "low", "--table", "out.xlsx"), ".csv or .parquet"),
        (("metrics", "low", "--table", "low"), ".csv or .parquet"),
        (("metrics", "low", "--resume"), "--table"),
        (("metrics", "low/1.tif", "--resume"), "--resume"),
        (("metrics", "pairs.csv", "low"), "lists all images of each row"),
        (
            ("metrics", "low", "pairs.csv"),
            "To use a table, name both images in its rows",
        ),
        (
            ("metrics", "pairs.csv", "--table", "pairs.csv", "--overwrite"),
            "is also the input",
        ),
        (("profile", "low"), "line"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_table_is_refused_in_one_line(refused, semsr, low, words, needs):
    if needs is None:  # which calls the enhanced one image
        assert semsr(*words).code == 0
    else:
        assert needs in refused(*words)
