"""Tables over images: every measure, what is kept, what fails alone."""

import os

import numpy as np
import pytest

from napari_semsr.analysis import MetricsOptions, ProfileOptions
from napari_semsr.core import (
    Micrograph,
    OptionError,
    ReadError,
    WriteError,
    get_columns,
    run,
)
from napari_semsr.io.formats import write
from napari_semsr.jobs import (
    REPLACING,
    OverwritePolicy,
    get_measuring_command,
    measure_table_job,
)
from napari_semsr.jobs.index import MEASURES
from tests.children import leave_temporary_file
from tests.refusals import refused, warned
from tests.tables import rows_of

RESUMED = OverwritePolicy(resume=True)
OPTIONS = {"profile": ProfileOptions(line=(10, 10, 60, 80))}


@pytest.fixture
def pairs(tmp_path, scene):
    """Two folders of images of the same names, another type each."""
    for folder, image in (("low", scene.first), ("high", scene.second)):
        (tmp_path / folder).mkdir()
        for number in (1, 2, 10):
            end = "tif" if folder == "low" else "ome.tif"
            shifted = image.replace(data=image.array() + number)
            write(shifted, tmp_path / folder / f"field{number}.{end}")
    return tmp_path


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_makes_a_row_an_image(pairs, name):
    columns = get_measuring_command(name).image_columns
    table, second = pairs / "table.csv", pairs / "high" if len(columns) == 2 else None
    how = {"options": OPTIONS.get(name)}
    found = run(measure_table_job(name, pairs / "low", second, table=table, **how))
    rows = rows_of(table)
    names = [f"low/field{number}.tif" for number in (1, 2, 10)]
    assert [row[columns[0]] for row in rows] == names
    if second:
        assert [row[columns[1]] for row in rows][2] == "high/field10.ome.tif"
    for column, summary in found.summary.items():
        values = [float(row[column]) for row in rows if row[column]]
        assert summary["images"] == len(values)
        assert summary["mean"] == pytest.approx(np.mean(values), rel=1e-6)
        sd = np.std(values, ddof=1) if len(values) > 1 else None
        assert summary["sd"] == pytest.approx(sd, rel=1e-5, abs=1e-6)
    assert [row["error"] for row in rows] == [""] * 3
    assert (found.images, found.measured, found.kept, found.failed) == (3, 3, 0, 0)


def test_width_and_height_of_a_profile_are_those_of_one_line(tmp_path):
    x = np.arange(160.0)
    low, high = (np.exp(-(((x - at) / 6) ** 2)) for at in (40, 110))
    image = np.tile(20 * low + 100 * high**2, (30, 1))
    write(Micrograph(image, (1.0, 1.0)), tmp_path / "two.tif")
    how = ProfileOptions(line=(15, 0, 15, 159), pixel="point")
    (row,) = run(measure_table_job("profile", [tmp_path / "two.tif"], options=how)).rows
    assert row["fwhm_nm"] == pytest.approx(6 * np.sqrt(2 * np.log(2)), rel=0.01)
    assert row["height_grey"] == pytest.approx(100, rel=0.01)


@pytest.mark.broad
def test_a_table_of_pairs_is_read_from_its_own_folder(pairs, monkeypatch):
    monkeypatch.chdir(pairs / "high")
    table = pairs / "pairs.csv"
    rows = ("3,low/field1.tif,high/field1.ome.tif", "4,low/field2.tif,")
    table.write_text("\n".join(("dose,image,reference", *rows)))
    run(measure_table_job("metrics", table, table=pairs / "out.csv"))
    rows = rows_of(pairs / "out.csv")
    assert [row["dose"] for row in rows] == ["3", "4"]
    assert [bool(row["psnr_db"]) for row in rows] == [True, False]


def test_image_that_cannot_be_measured_has_a_row_and_the_others_go_on(pairs):
    (pairs / "low" / "field2.tif").write_text("no image")
    job = measure_table_job("metrics", pairs / "low", table=pairs / "out.csv")
    with warned("images-failed", match="1 of 3 "):
        found = run(job)
    assert (found.measured, found.failed) == (2, 1)
    rows = rows_of(pairs / "out.csv")
    assert "must be a TIFF" in rows[1]["error"]
    assert rows[1]["contrast"] == ""
    assert rows[2]["contrast"]
    assert found.summary["contrast"]["images"] == 2


def test_mistyped_name_makes_no_table(pairs):
    job = measure_table_job("metrics", pairs / "missing.tif", table=pairs / "out.csv")
    with refused(ReadError, "file-missing", match=r"missing\.tif"):
        run(job)
    assert not (pairs / "out.csv").exists()


def test_warnings_stand_in_their_rows(tmp_path, scene):
    bare = scene.first.replace(pixel_size_nm=None)
    write(bare, tmp_path / "bare.tif")
    write(scene.first, tmp_path / "sized.tif")
    with warned("images-with-warnings", match="1 of 2 "):
        found = run(measure_table_job("decorrelation", tmp_path))
    assert "no pixel size" in found.rows[0]["warnings"]
    assert found.rows[1]["warnings"] is None


# Resuming.


def resumed(pairs, images="low", **how):
    table = pairs / "out.csv"
    return run(
        measure_table_job(
            "metrics", pairs / images, table=table, existing=RESUMED, **how
        )
    )


def measured(pairs, **how):
    found = resumed(pairs, **how)
    return found.measured, found.kept


def test_rows_of_the_same_files_and_options_are_kept(pairs):
    assert measured(pairs) == (3, 0)
    before = (pairs / "out.csv").read_bytes()
    left = leave_temporary_file(pairs / "out.csv")
    assert left.exists()
    assert measured(pairs) == (0, 3)
    assert not left.exists()
    assert (pairs / "out.csv").read_bytes() == before


@pytest.mark.broad
def test_table_that_a_spreadsheet_saved_again_is_resumed(pairs):
    """As one does where commas are decimal."""
    measured(pairs)
    path = pairs / "out.csv"
    before, rows = rows_of(path), rows_of(path)
    measures = get_columns(get_measuring_command("metrics").result)
    for row in rows:
        numbers = [name for name in measures if name != "data_range_from"]
        row.update({name: row[name].replace(".", ",").upper() for name in numbers})
    lines = [";".join(rows[0]), *(";".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines))
    assert measured(pairs) == (0, 3)
    (pairs / "low" / "field1.tif").touch()  # so that the table is written again
    assert measured(pairs) == (1, 2)
    assert rows_of(path)[1:] == before[1:]


def test_table_with_a_broken_line_is_not_resumed(pairs):
    measured(pairs)
    path = pairs / "out.csv"
    broken = path.read_text().rstrip().rpartition(",")[0]
    path.write_text(broken)
    with refused(WriteError, "table-invalid", match="^Line 4 "):
        measured(pairs)
    assert path.read_text() == broken


def test_changed_file_and_other_options_are_measured_again(pairs):
    measured(pairs)
    path = pairs / "low" / "field2.tif"
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert measured(pairs) == (1, 2)
    assert measured(pairs, options=MetricsOptions(data_range=100)) == (3, 0)


def test_rows_of_images_that_are_not_there_any_more_are_dropped_aloud(pairs):
    resumed(pairs, "high")
    resumed(pairs)
    (pairs / "low" / "field2.tif").unlink()
    with warned("rows-dropped", match=" 1 row .*out.csv"):
        found = resumed(pairs)
    assert (found.images, found.measured, found.kept) == (5, 0, 2)
    assert found.summary["contrast"]["images"] == 5
    assert len(rows_of(pairs / "out.csv")) == 5


def test_stopped_run_keeps_its_rows_and_says_which_are_missing(pairs):
    job = measure_table_job("metrics", pairs / "low", table=pairs / "out.csv")

    def stop(step):
        if step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, stop)
    rows = rows_of(pairs / "out.csv")
    assert [bool(row["contrast"]) for row in rows] == [True, False, False]
    assert ["`resume`" in row["error"] for row in rows] == [False, True, True]
    assert measured(pairs) == (2, 1)


# What is refused.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("img,reference\na,b\n", "reference and enhanced, got img, reference"),
        ("reference,enhanced\n", None),
        ("reference,enhanced\na.tif,b.tif\na.tif,\n", "^Line 3 .* 2 cells"),
    ],
    ids=["column", "no-row", "no-image"],
)
def test_table_that_names_no_images_is_refused(tmp_path, text, values):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with refused(ReadError, "table-invalid", match=values):
        run(measure_table_job("error-map", path))


def test_unknown_measure_and_images_that_do_not_go_together_are_refused(pairs, scene):
    low, other = pairs / "low", pairs / "other"
    other.mkdir()
    write(scene.first, other / "else.tif")
    for images, error, code in (
        (("sharpness", low), OptionError, "verb-unknown"),
        (("error-map", low), OptionError, "wrong-image-count"),
        (("profile", low), OptionError, "missing-value"),
        (("frc", low, other), ReadError, "second-image-missing"),
    ):
        with refused(error, code):
            run(measure_table_job(*images))


def test_table_that_is_there_is_not_replaced(pairs):
    table = pairs / "out.csv"
    table.write_text("image,mine\na,1\n")
    with refused(WriteError, "output-exists"):
        run(measure_table_job("metrics", pairs / "low", table=table))
    with refused(WriteError, "other-run"):
        run(measure_table_job("metrics", pairs / "low", table=table, existing=RESUMED))
    assert table.read_text() == "image,mine\na,1\n"
    run(measure_table_job("metrics", pairs / "low", table=table, existing=REPLACING))
    assert len(rows_of(table)) == 3
