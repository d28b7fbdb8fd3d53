"""Stitching and cutting go on where they were interrupted, and end alike."""

import itertools

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import IncompleteError, Micrograph, SemsrError, run
from napari_semsr.io import get_half_paths, read
from napari_semsr.jobs import CROP, STITCH, CropOptions, StitchFolderOptions
from tests.refusals import refused


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan whose mosaic has two write units."""
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="pits", frames_grid=(1, 3), frame_px=224, overlap=0.2,
        jitter_px=2, field="square", focal_series=2, oversampling=1, seed=1,
    )  # fmt: skip
    return folder


def stop_after_one(job):
    for step in job:
        if step.message.startswith(("Fusing", "cutting")) and step.done == 1:
            assert step.total > 1
            break
    job.close()


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("name", "focus"), [("mosaic.ome.tif", "none"), ("mosaic.ome.zarr", "max")]
)
def test_an_interrupted_mosaic_is_completed(scan, tmp_path, name, focus):
    options = StitchFolderOptions(focus=focus, dtype="uint16")
    whole = run(STITCH.job(scan, tmp_path / f"whole-{name}", options=options))
    target = tmp_path / name
    stop_after_one(STITCH.job(scan, target, options=options, keep=True))
    if name.endswith("zarr"):
        with refused(IncompleteError, "incomplete"):
            read(target)
    other = options.replace(blend="seam")
    with refused(SemsrError, "other-run", match="blend"):
        run(STITCH.job(scan, target, options=other, resume=True))
    done = run(STITCH.job(scan, target, options=options, resume=True))
    images = [(target, whole.output), (done.coverage, whole.coverage)]
    images += [(done.height, whole.height)] if focus == "max" else []
    for pair in images:
        np.testing.assert_array_equal(*(read(path).array() for path in pair))
    assert done.warnings == whole.warnings
    assert not list(tmp_path.glob(".*"))


@pytest.mark.broad
def test_a_mosaic_stays_until_the_one_that_replaces_it_is_whole(scan, tmp_path):
    target, options = tmp_path / "m.ome.zarr", StitchFolderOptions(halves=True)
    run(STITCH.job(scan, target, options=options.replace(blend="seam")))
    paths = [target, *get_half_paths(target)]
    before = [read(path).array() for path in paths]
    whole = tmp_path / "whole.ome.zarr"
    steps = sum(1 for _ in STITCH.job(scan, whole, options=options))
    job = STITCH.job(scan, target, options=options, overwrite=True)
    # both halves are whole, and the mosaic but for its end
    assert sum(1 for _ in itertools.islice(job, steps - 1)) == steps - 1
    job.close()
    for path, values in zip(paths, before, strict=True):
        np.testing.assert_array_equal(read(path).array(), values)
    run(STITCH.job(scan, target, options=options, resume=True))
    for path, other in zip(paths, [whole, *get_half_paths(whole)], strict=True):
        np.testing.assert_array_equal(read(path).array(), read(other).array())
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_part_is_completed(tmp_path, rng):
    data = rng.integers(0, 255, (600, 700), dtype=np.uint8)
    image = Micrograph(data, (10.0, 10.0), "image")
    options = CropOptions(box=(0, 10, 600, 700))
    target, beside = tmp_path / "part.ome.zarr", tmp_path / "like.ome.zarr"
    stop_after_one(CROP.job(image, output=target, options=options))
    moved = CropOptions(box=(0, 9, 600, 699))
    with refused(SemsrError, "other-run", match="box"):
        run(CROP.job(image, output=target, options=moved, resume=True))
    run(CROP.job(image, output=target, options=options, resume=True))
    np.testing.assert_array_equal(read(target).array(), data[:, 10:])
    both = tmp_path / "both.ome.zarr"
    how = {"output": both, "like": image, "like_output": beside}
    stop_after_one(CROP.job(image, **how))
    assert not beside.exists()
    run(CROP.job(image, **how, resume=True))
    for path in (both, beside):
        np.testing.assert_array_equal(read(path).array(), data)
