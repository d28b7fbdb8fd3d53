"""A step whose record agrees is skipped; anything else that changed repeats it."""

import shutil

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr import core
from napari_semsr.core import capture_warnings, get_error_code, run, warn
from napari_semsr.io import read, write
from napari_semsr.jobs import Result, Step, run_step


@pytest.fixture
def image(tmp_path, rng):
    path = tmp_path / "a.tif"
    write(semsr.Micrograph(rng.random((40, 48), np.float32), (5, 5), "a"), path)
    return path


def count_runs(step, text="pixels"):
    """Run a step whose job writes its outputs; give whether it ran, and its record."""

    def job():
        for path in step.outputs:
            path.write_text(text)
        warn("A sentence.", "a-code")
        yield from ()
        return Result()

    heard = []
    with capture_warnings(heard.append):
        record, result = run(run_step(step, job))
    assert [*map(get_error_code, heard)] == ["a-code"]
    assert record.codes == ["a-code"]
    return result is not None


def make_step(tmp_path, image, **options):
    return Step("cut", {"image": image, "level": 2}, options, (tmp_path / "out.txt",))


@pytest.mark.parametrize("change", ["input", "value", "option", "output", "version"])
def test_whatever_changed_repeats_the_step(tmp_path, image, change, monkeypatch):
    step = make_step(tmp_path, image, side=3)
    assert count_runs(step)
    if change == "input":
        write(read(image).replace(data=read(image).array() + 1), image, overwrite=True)
    elif change == "value":
        step = Step(step.name, {**step.inputs, "level": 3}, step.options, step.outputs)
    elif change == "option":
        step = make_step(tmp_path, image, side=4)
    elif change == "output":
        step.outputs[0].write_text("others")
    else:
        newer = {**core.get_software_versions(), "napari-semsr": "99"}
        monkeypatch.setattr(core, "get_software_versions", lambda: newer)
    assert count_runs(step)
    assert not count_runs(step)


def test_folder_that_was_copied_is_done(tmp_path, image):
    first = tmp_path / "first"
    first.mkdir()
    assert count_runs(make_step(first, image))
    shutil.copytree(first, tmp_path / "second", copy_function=shutil.copy)
    shutil.copy(image, tmp_path / "b.tif")
    assert not count_runs(make_step(tmp_path / "second", tmp_path / "b.tif"))


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"step": "cut"}', "\0"])
def test_damaged_record_counts_as_none(tmp_path, image, text):
    step = make_step(tmp_path, image)
    assert count_runs(step)
    step.record_path.write_text(text)
    assert count_runs(step)
