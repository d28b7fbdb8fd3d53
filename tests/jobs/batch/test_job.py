import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from distributed import LocalCluster

import napari_semsr as semsr
from napari_semsr.core import (
    CheckpointError,
    Micrograph,
    OptionError,
    SemsrError,
    WaitingProgress,
    WriteError,
)
from napari_semsr.io import read, read_sheet, write
from napari_semsr.jobs import extract_command_names, extract_steps
from tests.children import LIMIT_S, leave_temporary_file, started
from tests.refusals import refused, warned
from tests.tiny_models import write_tiny_model

SEMSR = [sys.executable, "-m", "napari_semsr"]


class StopError(Exception):
    """Raised by who hears of progress."""


def stop_at(done):
    """Stop a batch once so many steps are done."""

    def hear(step):
        if step.done >= done:
            raise StopError

    return hear


def times(folder):
    """When each output was written last."""
    files = (path for path in folder.rglob("*.ome.tif"))
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in files}


@pytest.fixture
def whole(scans, save, batch, tmp_path):
    """The table of a run that nothing stopped."""
    return table_of(batch(save(), output=tmp_path / "whole"))


def table_of(report):
    return Path(report.table).read_text("utf-8")


def test_every_image_has_a_row_of_what_each_step_found(scans, save, batch, tmp_path):
    report = batch(save())
    assert (report.done, report.failed, report.ran, report.kept) == (6, 0, 18, 0)
    sheet = read_sheet(tmp_path / "made" / "table.csv", "images")
    rows = [dict(zip(sheet.names, row, strict=True)) for _, row in sheet.rows]
    assert [row["name"] for row in rows] == ["s0", "s1", "s2", "s3", "s10", "s11"]
    assert all(float(row["metrics_psnr_db"]) > 10 for row in rows)
    assert all(row["frc_criterion"] == "1/7" for row in rows)
    assert {row["error"] for row in rows} == {""}
    made = tmp_path / "made" / rows[3]["degrade_output"]
    assert read(made).provenance.job == "degrade"


def test_what_is_finished_is_not_run_again(scans, save, batch, tmp_path):
    steps = save()
    first, before = table_of(batch(steps)), times(tmp_path / "made")
    again = batch(steps)
    assert (again.ran, again.kept) == (0, 18)
    assert table_of(again) == first
    assert times(tmp_path / "made") == before
    anew = batch(steps, overwrite=True)
    assert (anew.ran, anew.kept) == (18, 0)
    assert table_of(anew) == first


@pytest.mark.quick(1)
@pytest.mark.parametrize("done", [1, 8, 17])
def test_table_after_a_stop_says_what_waits_and_is_then_that_of_a_run_without(
    scans, save, batch, whole, tmp_path, done
):
    steps = save()
    with pytest.raises(StopError):
        batch(steps, report=stop_at(done))
    sheet = read_sheet(tmp_path / "made" / "table.csv", "images")
    errors = [row[sheet.names.index("error")] for _, row in sheet.rows]
    finished = done // 3
    assert errors == [""] * finished + ["not run yet"] * (6 - finished)
    report = batch(steps)
    assert report.kept >= done - 1
    assert report.ran == 18 - report.kept
    assert table_of(report) == whole


@pytest.mark.broad
@pytest.mark.skipif(not hasattr(os, "fork"), reason="ends a process as POSIX does")
@pytest.mark.parametrize("kill", ["terminate", "kill"])
def test_table_after_a_kill_is_that_of_a_run_without(
    scans, save, batch, whole, tmp_path, kill
):
    steps = save()
    state = tmp_path / "made" / ".batch"
    with started([*SEMSR, "batch", steps, "--quiet"]) as process:
        end = time.monotonic() + LIMIT_S
        while len(list(state.glob("*.json"))) < 3 and time.monotonic() < end:
            time.sleep(0.002)
        getattr(process, kill)()
        process.wait(LIMIT_S)
    report = batch(steps)
    assert report.kept >= 2
    assert report.done == 6
    assert table_of(report) == whole


@pytest.mark.broad
def test_two_workers_give_the_same_table(scans, save, batch, whole):
    report = batch(save(), workers=2)
    assert (report.done, report.ran) == (6, 18)
    assert table_of(report) == whole
    assert batch(save()).ran == 0


@pytest.mark.broad
def test_workers_of_a_scheduler_give_the_same_table(scans, save, batch, whole):
    said = []

    def hear(step):
        if isinstance(step, WaitingProgress):
            said.append(step.message)
            there.scale(1)

    with LocalCluster(
        n_workers=0,
        processes=False,
        threads_per_worker=1,
        host="tcp://127.0.0.1",
        dashboard_address=None,
    ) as there:
        report = batch(save(), scheduler=there.scheduler_address, report=hear)
    assert table_of(report) == whole
    assert f"the cluster at {there.scheduler_address} has no workers" in said[0]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failing_image_does_not_stop_the_others(
    scans, save, batch, tmp_path, workers
):
    (scans / "s3.tif").write_bytes((scans / "s3.tif").read_bytes()[:300])
    with warned("images-failed", match="1 of 6 .*degrade: "):
        report = batch(save(), workers=workers)
    assert (report.done, report.failed) == (5, 1)
    errors = {row["name"]: row["error"] for row in report.rows if row["error"]}
    assert list(errors) == ["s3"]
    assert "is truncated" in errors["s3"]
    good = Micrograph(np.eye(64, dtype=np.uint8), (5, 5), "s3")
    write(good, scans / "s3.tif", overwrite=True)
    mended = batch(save())
    assert (mended.done, mended.ran, mended.kept) == (6, 3, 15)


@pytest.mark.broad
def test_where_no_image_goes_through_the_sentence_says_why(scans, save, batch):
    for path in scans.iterdir():
        path.write_bytes(b"nothing")
    with refused(SemsrError, "all-images-failed", match=" 6 .* degrade: "):
        batch(save())


def test_hidden_files_of_a_killed_run_are_removed(scans, save, batch, tmp_path):
    steps, out = save(), tmp_path / "made"
    batch(steps)
    left = [
        leave_temporary_file(out / name) for name in ("table.csv", ".batch/i0.json")
    ]
    assert all(path.exists() for path in left)
    batch(steps)
    assert not any(path.exists() for path in left)


def test_a_changed_step_redoes_only_what_depends_on_it(scans, save, batch, tmp_path):
    steps = [
        {"degrade": {"seed": 1}},
        {"spectrum": {"image": "{input}"}},
        {"metrics": {"reference": "{input}"}},
    ]
    batch(save(steps))
    changed = [*steps[:2], {"metrics": {"reference": "{input}", "match": "affine"}}]
    last = batch(save(changed))
    assert (last.ran, last.kept) == (6, 12)
    first = batch(save([{"degrade": {"seed": 2}}, *changed[1:]]))
    assert (first.ran, first.kept) == (12, 6)


@pytest.mark.broad
def test_what_was_changed_or_taken_away_is_made_again(scans, save, batch, tmp_path):
    batch(save())
    other = Micrograph(np.eye(64, dtype=np.uint8), (5, 5), "s1")
    write(other, scans / "s1.tif", overwrite=True)
    report = batch(save())
    assert (report.ran, report.kept) == (3, 15)
    made = tmp_path / "made" / "degrade"
    (made / "s2.ome.tif").unlink()
    (made / "s3.ome.tif").write_bytes(b"other")
    report = batch(save())
    assert (report.ran, report.kept) == (2, 16)
    assert read(made / "s3.ome.tif").shape == (72, 64)


@pytest.mark.parametrize("name", ["s2.txt", "s2-tif.hdr", "s2.half-a.ome.zarr"])
def test_what_goes_with_an_image_is_noticed(scans, save, batch, name):
    steps = save(["decorrelation"], inputs="scans/s[23].tif")
    assert (batch(steps).ran, batch(steps).kept) == (2, 2)
    if name.endswith("zarr"):
        write(read(scans / "s3.tif"), scans / name)
    else:
        (scans / name).write_text("[SemImageFile]\nPixelSize=5\n")
    assert (batch(steps).ran, batch(steps).kept) == (1, 2)


@pytest.mark.parametrize("name", ["spot.tif", "spot"])
def test_a_kernel_lies_beside_the_steps_and_is_noticed(
    scans, save, batch, tmp_path, monkeypatch, name
):
    kernel = np.zeros((9, 9), np.uint8)
    kernel[3:6, 3:6] = 1
    tifffile.imwrite(tmp_path / name, kernel)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tifffile.imwrite(name, np.eye(9, dtype=np.uint8))
    steps = save(["metrics", {"restore": {"psf": name}}], inputs="scans/s[23].tif")
    assert (batch(steps).ran, batch(steps).kept) == (4, 4)
    kernel[4, 4] = 3
    tifffile.imwrite(tmp_path / name, kernel)
    assert (batch(steps).ran, batch(steps).kept) == (2, 4)


@pytest.mark.broad
@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "[" * 10_000),
        '{"format": 1, "image": "s0", "steps": {"frc": 3}, "files": 4}',
        '{"format": 1, "image": "s0", "steps": [], "files": []}',
    ],
    ids=["empty", "list", "cut", "deep", "numbers", "lists"],
)
def test_a_damaged_state_begins_its_image_anew(
    scans, save, batch, whole, tmp_path, text
):
    batch(save())
    (tmp_path / "made" / ".batch" / "s0.json").write_text(text)
    report = batch(save())
    assert (report.ran, report.kept) == (3, 15)
    assert table_of(report) == whole


@pytest.mark.broad
def test_a_moved_batch_keeps_what_it_has(scans, save, batch, tmp_path):
    batch(save())
    there = tmp_path / "there"
    there.mkdir()
    for name in ("scans", "made", "steps.yaml"):
        shutil.move(tmp_path / name, there / name)
    assert batch(there / "steps.yaml").ran == 0


def test_a_table_names_images_and_more(scans, save, batch, tmp_path):
    (tmp_path / "list.csv").write_text(
        "image,name,reference,dose,seed\n"
        "scans/s0.tif,one,scans/s1.tif,3.5,4\n"
        "scans/s1.tif,two,scans/s1.tif,7,\n"
    )
    steps = [{"degrade": {"seed": "{seed}"}}, {"metrics": {"reference": "{reference}"}}]
    report = batch(save(steps, inputs="list.csv"))
    assert [row["name"] for row in report.rows] == ["one", "two"]
    assert [row["dose"] for row in report.rows] == ["3.5", "7"]
    options = [
        read(tmp_path / "made" / "degrade" / f"{name}.ome.tif").provenance.options
        for name in ("one", "two")
    ]
    assert [one["seed"] for one in options] == [4, 0]


def test_names_of_steps_and_outputs_are_chosen(scans, save, batch, tmp_path):
    steps = [
        {"name": "soft", "degrade": {"kind": "blur", "output": "{name}-soft.tif"}},
        {"degrade": {"kind": "fog"}},
        {
            "name": "gain",
            "metrics": {"image": "{step.soft}", "reference": "{previous}"},
        },
    ]
    report = batch(save(steps))
    assert report.rows[0]["soft_output"] == "s0-soft.tif"
    assert report.rows[0]["gain_psnr_db"] is not None
    assert (tmp_path / "made" / "s11-soft.tif").is_file()


@pytest.mark.broad
def test_a_list_a_glob_and_flags_reach_the_verb(scans, save, batch, tmp_path):
    degrade = {"kind": "fog", "uniform-fog": True}
    steps = [{"crop": {"box": [0, 0, 40, 32]}}, {"degrade": degrade}]
    report = batch(save(steps, inputs="scans/s1*.tif"))
    assert [row["name"] for row in report.rows] == ["s1", "s10", "s11"]
    made = read(tmp_path / "made" / "degrade" / "s10.ome.tif")
    assert made.shape == (40, 32)
    assert made.provenance.options["uniform_fog"] is True


@pytest.mark.broad
def test_outputs_among_the_inputs_of_a_glob_are_none(scans, save, batch, tmp_path):
    steps = save(inputs="**/*.tif", output="scans/made")
    assert batch(steps).done == 6
    assert batch(steps).kept == 18


@pytest.mark.broad
def test_report_is_made_once_and_has_all(scans, save, batch, tmp_path):
    steps = save(["metrics"], inputs="scans/s?.tif", report={"title": "Four scans"})
    report = batch(steps)
    page = tmp_path / "made" / "report.html"
    assert report.report == (str(page),)
    text = page.read_text("utf-8")
    assert "Four scans" in text
    assert all(f"s{number}" in text for number in range(4))
    before = page.stat().st_mtime_ns
    batch(steps)
    assert page.stat().st_mtime_ns == before


@pytest.mark.broad
def test_a_folder_of_other_files_is_left_alone(scans, save, batch, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with refused(WriteError, "foreign-files"):
        batch(save())
    assert batch(save(), overwrite=True).done == 6
    assert (tmp_path / "made" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"workers": 0}, "out-of-range"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "options-contradict"),
    ],
)
def test_impossible_numbers_of_workers_are_refused(scans, save, batch, how, code):
    with refused(OptionError, code):
        batch(save(), **how)


@pytest.mark.parametrize("kept", [True, False], ids=["file-there", "file-gone"])
def test_steps_of_a_history_take_the_very_model_or_are_refused(
    kept, scans, batch, own_shelf, tmp_path
):
    own_shelf.mkdir(parents=True)
    write_tiny_model(own_shelf, limits="an earlier training")
    model = write_tiny_model(tmp_path)  # of the same name
    made = semsr.enhance(scans / "s1.tif", model=model).provenance
    if not kept:
        write_tiny_model(tmp_path, limits="a later training")
        with refused(CheckpointError, "model-unknown"):
            extract_steps(made)
        assert extract_command_names(made) == ["enhance"]
        return
    steps, _ = extract_steps(made)
    output = tmp_path / "made"
    batch({"inputs": scans / "s1.tif", "output": output, "steps": steps})
    again = read(output / "enhance" / "s1.ome.tif").provenance
    assert again.model_digest == made.model_digest


def test_steps_of_a_history_read_their_images_as_they_were_read(tmp_path, rng):
    grey, reading = rng.random((64, 64)), {"databar_rows": 8, "pixel_size_nm": 7}
    files = [tmp_path / f"{name}.ome.tif" for name in "abc"]
    semsr.write(semsr.Micrograph(grey), files[0])
    semsr.convert(*files[:2], **reading)
    semsr.crop(files[1], output=files[2], box=(0, 0, 50, 50), databar_rows=4)
    steps, _ = extract_steps(read(files[2]).provenance)
    told = {"pixel-size-nm": [7, 7], "databar-rows": 8}
    cut = {"box": [0, 0, 50, 50], "databar-rows": 4}
    assert steps == [{"convert": told}, {"crop": cut}]


def test_steps_of_images_in_memory_cut_a_data_bar_once(rng):
    grey, reading = semsr.Micrograph(rng.random((64, 64))), {"databar_rows": 8}
    first = semsr.crop(grey, box=(0, 0, 50, 50), **reading)
    made = semsr.restore(first, psf="1px", **reading)
    steps, _ = extract_steps(made.provenance)
    assert made.shape == first.shape
    assert [step.popitem()[1].get("databar-rows") for step in steps] == [8, None]


def test_a_decimal_comma_of_a_table_is_one_number(tmp_path):
    image = semsr.Micrograph(np.arange(4096.0).reshape(64, 64), None, "a")
    semsr.write(image, tmp_path / "a.tif")
    (tmp_path / "t.csv").write_text("image;pixel\na.tif;7,5\n", "utf-8")
    steps = [{"restore": {"psf": "1px", "pixel-size-nm": "{pixel}"}}]
    inputs, output = str(tmp_path / "t.csv"), str(tmp_path / "out")
    semsr.batch({"inputs": inputs, "output": output, "steps": steps})
    made = semsr.read(tmp_path / "out" / "restore" / "a.ome.tif")
    assert made.pixel_size_nm == (7.5, 7.5)
