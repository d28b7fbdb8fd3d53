import shutil

import pytest

from tests.tables import rows_of

ONE = ("decorrelation", "spectrum", "metrics", "frc", "frc-map", "gaps")


@pytest.fixture
def low(images):
    for folder, name in (("low", "first"), ("high", "second")):
        (images / folder).mkdir()
        for number in (1, 2):
            shutil.copy(images / f"{name}.tif", images / folder / f"{number}.tif")
    rows = "low/1.tif,high/1.tif\nlow/2.tif,high/2.tif\n"
    (images / "pairs.csv").write_text(f"image,reference\n{rows}")
    (images / "fitted.csv").write_text(f"reference,enhanced\n{rows}")
    return images / "low"


@pytest.mark.quick(2)
@pytest.mark.parametrize("verb", ONE)
def test_folder_gives_a_row_an_image(semsr, low, verb):
    more = ("--block", "64") if verb == "frc-map" else ()
    said = semsr(verb, "low", "--table", "out.csv", "--json", *more)
    assert said.code == 0, said.err
    assert said.record["measure"] == verb
    rows = rows_of(low.parent / "out.csv")
    assert [row["image"] for row in rows] == ["low/1.tif", "low/2.tif"]
    assert [row["error"] for row in rows] == ["", ""]


def test_options_reach_every_image(semsr, low):
    plain = semsr("metrics", "low", "high", "--json").record
    given = semsr("metrics", "low", "high", "--data-range", "9", "--json").record
    assert {row["data_range_grey"] for row in given["rows"]} == {9}
    assert given["rows"][0]["psnr_db"] != plain["rows"][0]["psnr_db"]
    sized = semsr("frc", "low", "high", "--pixel-size-nm", "3", "--json").record
    assert {row["pixel_size_y_nm"] for row in sized["rows"]} == {3}


@pytest.mark.usefixtures("low")
def test_what_makes_no_table_is_refused_in_one_line(refused):
    for words, needs in (
        ("metrics nothing*.tif", "No file matches"),
        ("metrics folder", "empty folder"),
        ("metrics fitted.csv", "column image"),
        ("error-map low", "must have 2 images"),
        ("error-map low/1.tif -o out.tif", "enhanced is missing"),
        ("frc-map low/1.tif", "-o"),
        ("frc-map low -o out.tif", "--table"),
        ("spectrum low -o out.csv", "--table"),
        ("metrics low --table out.xlsx", ".csv or .parquet"),
        ("metrics low --resume", "--table"),
        ("metrics low/1.tif --resume", "--resume"),
        ("metrics pairs.csv low", "lists all images"),
        ("metrics low pairs.csv", "name both images"),
        ("metrics pairs.csv --table pairs.csv --overwrite", "is also the input"),
        ("profile low", "line"),
    ):
        assert needs in refused(*words.split())
