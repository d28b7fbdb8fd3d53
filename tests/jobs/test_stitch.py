"""A folder of frames becomes a mosaic on disk, whole or not at all."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr

import napari_semsr
from napari_semsr import core
from napari_semsr.core import OptionError, ReadError, WriteError, run
from napari_semsr.io import open_frames, read, write
from napari_semsr.jobs import STITCH, StitchFolderOptions
from napari_semsr.stitching.fuse import FusionPlan
from tests.refusals import refused
from tests.stopping import stop_at
from tests.tables import rows_of

SIDE = 96


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="particles", frames_grid=(3, 3), frame_px=SIDE,
        jitter_px=3, seed=1, positions="nm", pixel_size_error=0.1,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(scan):
    output = scan.parent / "mosaic.ome.zarr"
    return napari_semsr.stitch(
        scan, output, positions_out=scan.parent / "solved.csv", pixel_size_nm=20
    )


def corners_of(path):
    return {
        row["frame"]: (float(row["y_px"]), float(row["x_px"])) for row in rows_of(path)
    }


def test_positions_are_those_of_the_truth(made, scan):
    truth = corners_of(scan / "truth" / "positions.csv")
    assert [item["frame"] for item in made.positions] == list(truth)
    found = np.array([(item["y_px"], item["x_px"]) for item in made.positions])
    error = found - np.array(list(truth.values()))
    error -= error.mean(axis=0)
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.15
    assert found.min() == 0
    one = next(pair for pair in made.solution.pairs if pair.used)
    rough = replace(one, residual_px=3.1, sigma_px=np.nan)
    lost = replace(one, residual_px=15.4, used=False)
    solution = replace(made.solution, pairs=(one, rough, lost))
    verdict = replace(made, solution=solution).verdict
    assert "1 of 3 overlaps not refined, up to 3.1 px off" in verdict
    assert verdict.endswith("1 of 3 overlaps not used, up to 15 px off")


@pytest.mark.quick(1)
@pytest.mark.parametrize("has_table", [True, False])
def test_two_channels_at_each_position_are_refused(scan, tmp_path, has_table):
    folder, rng = tmp_path / "two", np.random.default_rng(0)
    folder.mkdir()
    rows = ["frame,y_px,x_px"]
    for name, (y, x) in corners_of(scan / "truth" / "positions.csv").items():
        grey = read(scan / name).array()
        noise = rng.normal(0, 1, (2, *grey.shape))
        for label, pixels in (("a", grey + noise[0]), ("b", grey / 3 + noise[1])):
            image = core.Micrograph(pixels.astype(np.float32), (20, 20))
            write(image, folder / f"{label}-{name}")
            rows.append(f"{label}-{name},{y + noise[0, 0, 0]},{x}")
    if has_table:
        (folder / "positions.csv").write_text("\n".join(rows))
    with refused(ReadError, "several-images", match="1[78] images at 9 positions"):
        napari_semsr.stitch(folder, tmp_path / "m.ome.zarr")
    for path in folder.glob("b-*"):  # two exposures of one kind are no channels
        write(read(path).replace(data=read(path).array() * 3), path, overwrite=True)
    if not has_table:
        assert napari_semsr.stitch(folder, tmp_path / "m.ome.zarr").frames == 18


def test_positions_none_is_recorded(scan, tmp_path):
    made = napari_semsr.stitch(scan, tmp_path / "m.ome.zarr", positions="none")
    assert made.stage_to_camera is None
    assert napari_semsr.replay(tmp_path / "m.ome.zarr").identical


def test_solved_positions_go_to_fiji_and_back(scan, tmp_path):
    folder = tmp_path / "scan"
    shutil.copytree(scan, folder, ignore=shutil.ignore_patterns("positions.csv"))
    table = folder / "TileConfiguration.registered.txt"
    done = napari_semsr.stitch(
        scan, tmp_path / "mosaic.tif", positions_out=table, pixel_size_nm=20
    )
    found = run(open_frames(folder)).nominal_px
    solved = [(item["y_px"], item["x_px"]) for item in done.positions]
    assert np.allclose(found, solved, atol=1e-6)
    y, x = solved[1]
    assert f"frame_001.tif; ; ({x:.6f}, {y:.6f})" in table.read_text()


def test_mosaic_is_calibrated_and_nan_where_no_frame_is(made):
    mosaic = read(made.output)
    assert mosaic.shape == made.shape
    assert mosaic.dtype == np.float32
    assert mosaic.pixel_size_nm == (20, 20)
    assert made.stage_pixel_size_nm == pytest.approx((20, 20), rel=0.02)
    coverage = zarr.open_array(made.coverage + "/0", mode="r")[:]
    data = mosaic.array()
    assert np.array_equal(np.isnan(data), coverage == 0)
    assert coverage.max() >= 2
    assert 0 < np.isnan(data).mean() < 0.3


def test_history_holds_digests_and_options(made):
    history = read(made.output).provenance
    (frames,) = history.inputs
    assert (frames.role, frames.name) == ("frames", "scan")
    assert frames.digest.startswith("sha256:")
    assert frames.provenance.job == "simulate"
    assert history.options["blend"] == "feather"


def test_distortion_is_told_and_recorded(bent_scan, tmp_path):
    bent = napari_semsr.stitch(bent_scan, tmp_path / "bent.ome.tif")
    assert bent.distortion == pytest.approx(0.04, abs=4 * bent.distortion_sd)
    assert 0 < bent.distortion_sd < 0.01
    found = read(bent.output).provenance.options["found"]
    assert found["distortion"] == bent.distortion
    assert found["distortion_from"] == "overlaps"
    how = {"distortion": "none"}
    plain = napari_semsr.stitch(bent_scan, tmp_path / "plain.ome.tif", **how)
    assert (plain.distortion, plain.distortion_sd) == (0, None)


def calibration(path, **told):
    """Write a calibration of 20 nm with some distortion."""
    values = {"pixel_size_nm": [20, 20], "pixel_size_sd_nm": [0.1, 0.1], **told}
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def bent_scan(tmp_path_factory):
    """A scan with 4 % at the rim."""
    folder = tmp_path_factory.mktemp("bent") / "scan"
    napari_semsr.simulate(
        folder, phantom="particles", frames_grid=(2, 2), frame_px=SIDE,
        overlap=0.4, field="square", seed=1, distortion=0.04, optics="gaussian",
    )  # fmt: skip
    return folder


def test_a_calibration_brings_its_distortion(bent_scan, tmp_path):
    told = {"distortion": 0.16, "distortion_sd": 0.002, "centre_px": [0, 0]}
    path = calibration(tmp_path / "c.json", **told, shape=[2 * SIDE, 3 * SIDE])
    made = napari_semsr.stitch(bent_scan, tmp_path / "m.ome.tif", calibration=path)
    record = made.to_json()
    assert record["distortion"] == pytest.approx(0.04)
    assert record["distortion_sd"] == pytest.approx(0.0005)
    assert record["distortion_from"] == "calibration"
    assert made.pixel_size_sd_nm == pytest.approx((0.1, 0.1))
    assert not made.warnings


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("told", "asked", "source", "said"),
    [
        ({}, "none", None, ""),
        ({}, 0.05, "option", "set to 0.05, but the calibration gives 0.0400"),
        ({"shape": None}, None, "overlaps", "does not record its image shape"),
        ({"distortion": 0.02}, "auto", "overlaps", "from the overlaps, but 0.0200 "),
        ({"distortion": None}, None, "overlaps", ""),
    ],
)
def test_what_is_asked_for_stands_before_a_calibration(
    bent_scan, tmp_path, told, asked, source, said
):
    usual = {"distortion": 0.04, "distortion_sd": 0.0005, "shape": [SIDE, SIDE]}
    how = {"calibration": calibration(tmp_path / "c.json", **{**usual, **told})}
    made = napari_semsr.stitch(
        bent_scan, tmp_path / "m.ome.tif", **how, distortion=asked
    )
    assert made.distortion_from == source
    assert len(made.warnings) == bool(said)
    assert said in " ".join(made.warnings)


@pytest.fixture
def bad_scan(scan, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(scan, folder)
    path = folder / "frame_004.tif"
    path.write_bytes(path.read_bytes()[:4000])
    return folder


def test_damaged_frame_is_null_and_named(bad_scan, tmp_path):
    how = {"dtype": "uint16", "positions_out": tmp_path / "solved.csv"}
    done = napari_semsr.stitch(bad_scan, tmp_path / "mosaic.tif", **how)
    lost = done.positions[4]
    assert lost["frame"] == "frame_004.tif"
    assert lost["y_px"] is lost["x_px"] is done.position_sd_px[4] is None
    assert [item.frame for item in done.left_out] == ["frame_004.tif"]
    assert "frame_004.tif" in done.warnings[0]
    assert "frame_004.tif,,\n" in (tmp_path / "solved.csv").read_text()
    mosaic, coverage = (
        read(tmp_path / f"mosaic{end}.tif") for end in ("", ".coverage")
    )
    assert mosaic.dtype == np.uint16
    assert np.all(mosaic.array()[coverage.array() == 0] == 0)


@pytest.mark.broad
def test_flat_field_may_be_a_file(scan, tmp_path):
    flat = scan / "truth" / "flat.ome.tif"
    dark = tmp_path / "dark.tif"
    shape = read(flat).array().shape
    write(core.Micrograph(np.full(shape, 3, np.uint8), None, "dark"), dark)
    how = {"flat_field": str(flat), "dark": str(dark)}
    done = napari_semsr.stitch(scan, tmp_path / "mosaic.ome.tif", **how)
    history = read(tmp_path / "mosaic.ome.tif").provenance
    assert [item.role for item in history.inputs] == ["frames", "flat field", "dark"]
    assert history.options["flat_field"] == "flat.ome.tif"
    assert (history.options["dark"], done.dark_level) == ("dark.tif", 3)
    assert done.solution.flat.method.startswith("file")


@pytest.mark.broad
def test_flat_field_and_dark_level_may_be_as_extreme_as_the_frames(scan, tmp_path):
    folder = shutil.copytree(scan, tmp_path / "scan")
    for path in [*folder.glob("frame_*.tif"), folder / "truth" / "flat.ome.tif"]:
        image = read(path)
        tiny = np.ldexp(image.array().astype(np.float32) + 3, -80)
        write(image.replace(data=tiny), path, overwrite=True)
    how = {"flat_field": str(path), "dark": 3 * 2.0**-80}
    done = napari_semsr.stitch(folder, tmp_path / "mosaic.ome.tif", **how)
    assert np.isfinite(done.solution.positions_px).all()
    assert done.dark_level == 3 * 2.0**-80


@pytest.mark.quick(1)
@pytest.mark.parametrize("at", ["recording", "Comparing", "Fusing"])
def test_stopped_work_leaves_nothing(scan, tmp_path, at):
    stop_at(STITCH.job(scan, tmp_path / "mosaic.ome.zarr", keep=False), at)
    assert list(tmp_path.iterdir()) == []


def test_existing_outputs_are_kept(scan, tmp_path):
    output = tmp_path / "mosaic.ome.tif"
    beside = tmp_path / "mosaic.coverage.tif"
    for path in (output, beside):
        path.write_text("precious")
        with refused(WriteError, "output-exists"):
            run(STITCH.job(scan, output))
        assert path.read_text() == "precious"
        path.unlink()


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"output": "scan/mosaic.ome.zarr"}, WriteError, "output-is-input"),
        ({"flat_field": "missing.tif"}, ReadError, "file-missing"),
        ({"dark": "missing.tif"}, ReadError, "file-missing"),
        ({"dark": "-3"}, OptionError, "out-of-range"),
        ({"grid": "2x2"}, OptionError, "grid-mismatch"),
        ({"grid": "many"}, OptionError, "wrong-type"),
        ({"overlap": 0.35}, OptionError, "grid-missing"),
        ({"pixel_size_nm": "0"}, OptionError, "pixel-size-invalid"),
        ({"folder": "nothing"}, ReadError, "file-missing"),
        ({"grid": "3x3", "positions": "p.csv"}, OptionError, "options-contradict"),
        ({"corrections": {"drop": ["frame_9.tif"]}}, OptionError, "frames-unknown"),
    ],
    ids=str,
)
def test_bad_requests_are_one_sentence(scan, monkeypatch, change, error, code):
    monkeypatch.chdir(scan.parent)
    before = sorted(scan.parent.iterdir())
    arguments = {"folder": "scan", "output": "new.ome.zarr", **change}
    with refused(error, code) as caught:
        napari_semsr.stitch(**arguments)
    assert "\n" not in str(caught.value)
    assert sorted(scan.parent.iterdir()) == before


@pytest.mark.broad
def test_corrections_are_recorded_replayed_and_resumed_by_what_they_say(
    made, scan, tmp_path
):
    placed = {row["frame"]: row for row in made.positions}
    at = {name: placed["frame_004.tif"][name] + 20 for name in ("y_px", "x_px")}
    said = {
        "strike": [["frame_000.tif", "frame_001.tif"]],
        "drop": ["frame_008.tif"],
        "place": {"frame_004.tif": at},
    }
    file, output = tmp_path / "by-hand.json", tmp_path / "corrected.ome.zarr"
    file.write_text(json.dumps(said), encoding="utf-8")
    how = {"pixel_size_nm": 20}
    corrected = napari_semsr.stitch(scan, output, corrections=file, **how)
    file.unlink()  # its content is kept, and not its path
    found = {row["frame"]: row for row in corrected.positions}
    assert found["frame_008.tif"]["y_px"] is None
    moved = [found["frame_004.tif"][name] for name in at]
    assert moved == pytest.approx([*at.values()], abs=0.5)
    assert napari_semsr.replay(output).identical
    again = napari_semsr.stitch(scan, output, resume=True, corrections=said, **how)
    assert again.positions == corrected.positions
    with refused(WriteError, "other-run"):
        napari_semsr.stitch(scan, output, resume=True, **how)


def test_a_mosaic_that_is_corrected_again_is_what_a_run_from_its_frames_gives(
    scan, tmp_path, monkeypatch
):
    output, other = tmp_path / "mosaic.ome.zarr", tmp_path / "other.ome.zarr"
    plain = StitchFolderOptions(pixel_size_nm=20)
    first = run(STITCH.job(scan, output, options=plain))
    join = {"first": "frame_000.tif", "second": "frame_001.tif"}
    said = {"join": [{**join, "shift_px": (0.0, 90.0)}]}
    how = {"options": plain.replace(corrections=said), "overwrite": True}
    fused, block = [], FusionPlan.compute_block
    monkeypatch.setattr(
        FusionPlan, "compute_block", lambda *now: fused.append(now) or block(*now)
    )
    monkeypatch.setattr("napari_semsr.stitching.solve_mosaic", None)  # not called
    again = run(STITCH.job(scan, output, again=first, **how))
    assert fused
    above = [row for row in again.pairs if row["score"] > again.score_threshold]
    assert max(row["residual_px"] for row in above if not row["used"]) > 2
    pixels = read(output).array()
    fused.clear()
    third = run(STITCH.job(scan, output, again=again, **how))
    assert not fused  # nothing has moved
    assert third.positions == again.positions
    assert np.array_equal(read(output).array(), pixels, equal_nan=True)
    monkeypatch.undo()
    fresh = run(STITCH.job(scan, other, options=how["options"]))
    assert fresh.positions == again.positions
    assert np.array_equal(read(other).array(), pixels, equal_nan=True)
    assert read(other).provenance.options == read(output).provenance.options
