"""A mosaic's halves lie beside it, and tell its resolution where they are its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import Grid, run
from napari_semsr.io import COVERAGE, get_half_paths, get_label_path, read
from napari_semsr.jobs import FRC, FRC_MAP, FrcMapJobOptions
from tests.refusals import warned

COARSE = FrcMapJobOptions(block=48, step=24)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="pits", frames_grid=(2, 2), frame_px=128, overlap=0.6,
        jitter_px=2, field="square", photons=5000, seed=2,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(scan):
    return napari_semsr.stitch(scan, scan.parent / "m.ome.zarr", halves=True)


@pytest.fixture
def own(made, scan, tmp_path):
    """Copies of the mosaic and its halves, to be spoilt."""
    for path in scan.parent.glob("m*.ome.zarr"):
        shutil.copytree(path, tmp_path / path.name)
    return tmp_path / "m.ome.zarr"


def measured(path):
    return run(FRC_MAP.job(path, options=COARSE))


def test_halves_lie_on_the_grid_of_the_mosaic(made):
    mosaic = read(made.output)
    halves = [read(half["output"]) for half in made.halves]
    beside = [str(path) for path in get_half_paths(Path(made.output))]
    assert [half["output"] for half in made.halves] == beside
    for half in halves:
        assert Grid.from_image(half) == Grid.from_image(mosaic)
        assert np.isnan(half.array()).any()
    known = np.any([np.isfinite(half.array()) for half in halves], axis=0)
    assert np.mean(known == np.isfinite(mosaic.array())) > 0.99


def test_map_of_the_mosaic_comes_from_its_halves(made):
    found = measured(made.output)
    assert found.method.startswith("mosaic-halves")
    assert found.images == ("m.ome.zarr",)
    assert 70 < found.median_nm < 180
    assert found.median_nm > found.cut_off_nm == pytest.approx(152.8, abs=0.1)
    made_of = [item.name for item in found.result.map.provenance.inputs]
    assert made_of == ["m.ome.zarr", "scan mosaic half a", "scan mosaic half b"]


def test_frc_measures_the_part_that_both_cover(made):
    found = run(FRC.job(made.output))
    assert found.result.method.startswith("mosaic-halves")
    median_nm = measured(made.output).median_nm
    assert found.result.resolution_nm == pytest.approx(median_nm, rel=0.15)
    y0, x0, y1, x1 = found.result.box
    assert found.result.shape == (y1 - y0, x1 - x0)


@pytest.mark.filterwarnings("ignore:Only .* of the particles:UserWarning")
def test_measures_of_a_mosaic_use_its_largest_part_without_gaps(made):
    mosaic = read(made.output)
    part = napari_semsr.crop(mosaic, gap_free=True)
    for measure in (napari_semsr.spectrum, napari_semsr.decorrelation):
        whole, inner = measure(mosaic), measure(part)
        y0, x0, y1, x1 = whole.box
        assert (y1 - y0, x1 - x0) == part.shape
        np.testing.assert_array_equal(whole.frequency_per_px, inner.frequency_per_px)
        assert inner.box is None
    whole, inner = napari_semsr.gaps(mosaic), napari_semsr.gaps(part)
    assert whole.labels.shape == mosaic.shape
    np.testing.assert_array_equal(whole.labels[y0:y1, x0:x1], inner.labels)
    assert whole.get_diameters("nm").tolist() == inner.get_diameters("nm").tolist()
    places = [np.array([s.place_px for s in r.sizes]) for r in (whole, inner)]
    np.testing.assert_allclose(places[0] - places[1], np.full_like(places[1], (y0, x0)))
    assert [g.place_nm for g in whole.found_gaps] == [
        g.place_nm for g in inner.found_gaps
    ]


def alone(path, why):
    with warned("halves-missing"):
        found = measured(path)
    assert found.method.startswith("single-image FRC")
    assert " It was measured as a single image." in found.note
    assert why in found.note


def test_halves_that_cannot_be_read_or_are_missing_are_told(own):
    _, second = get_half_paths(own)
    (second / "zarr.json").write_text("{")
    alone(own, "cannot be read")
    shutil.rmtree(second)
    alone(own, "but not the other half")


@pytest.mark.broad
def test_halves_of_other_frames_are_not_used(own, scan, tmp_path):
    other = shutil.copytree(scan, tmp_path / "other")
    (other / "frame_003.tif").unlink()
    napari_semsr.stitch(scan, own, blend="seam", overwrite=True)
    alone(own, "made from other frames or options")


@pytest.mark.quick(1)
@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_copy_takes_halves_and_coverage_along(made, tmp_path, suffix):
    copy, mosaic = tmp_path / f"copy{suffix}", measured(made.output)
    napari_semsr.convert(made.output, copy)
    found = measured(copy)
    assert (found.method, found.note) == (mosaic.method, mosaic.note)
    values = (one.result.measured_values for one in (found, mosaic))
    np.testing.assert_array_equal(*values)
    paths = (get_label_path(path, COVERAGE) for path in (Path(made.output), copy))
    np.testing.assert_array_equal(*(read(path).array() for path in paths))
