"""What a simulated frames folder holds, and when it is not written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import napari_semsr
from napari_semsr import io
from napari_semsr.core.errors import DeviceMemoryError, OptionError, WriteError
from napari_semsr.core.micrograph import digest_path
from napari_semsr.core.progress import run
from napari_semsr.io import read, read_transform
from napari_semsr.jobs import SIMULATE, SimulateOptions
from napari_semsr.simulation.scan import ScanOptions, run_scan_simulation
from tests.refusals import refused
from tests.stopping import stop_at
from tests.tables import rows_of

SIZES = {"frames_grid": (2, 2), "frame_px": 48, "jitter_px": 2.0, "seed": 3}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def interrupt_at(target):
    """Interrupt the renaming to the target, but no other."""
    rename = Path.replace

    def replace(path: Path, new: Path) -> Path:
        if new == target:
            raise KeyboardInterrupt
        return rename(path, new)

    return replace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("scans") / "scan"
    options = SimulateOptions(
        **SIZES, exposures=2, focal_series=2, sem=True, sem_view=True, bad_frames=1
    )
    run(SIMULATE.job(out_dir=target, options=options))
    return target


@pytest.fixture(scope="module")
def truth(folder):
    return json.loads((folder / "truth" / "microscope.json").read_text())


def test_folder_holds_frames_positions_scan_and_truth(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {f"frame_{index:03d}.tif" for index in range(4)} <= names
    assert {"positions.csv", "scan.json"} <= names
    truth = ("positions.csv", "object.ome.tif", "microscope.json", "height.ome.tif")
    assert {f"truth/{name}" for name in truth} <= names
    assert {"exposures/exposure_01.tif", "sem/sem.ome.tif"} <= names
    assert {"z_000/frame_000.tif", "z_001/frame_003.tif", "z_001/scan.json"} <= names
    assert not list(folder.parent.glob(".scan-*"))


def test_files_say_what_the_scan_is(folder):
    scan = run_scan_simulation(None, ScanOptions(**SIZES, bad_frames=1))
    frame = read(folder / "frame_002.tif")
    assert frame.dtype == np.uint16
    assert np.array_equal(frame.array(), scan.frames[2])
    assert frame.pixel_size_nm == pytest.approx((20, 20))
    for path, corners in (
        (folder / "positions.csv", scan.nominal_px),
        (folder / "truth" / "positions.csv", scan.true_px),
    ):
        rows = rows_of(path)
        assert rows[3]["frame"] == "frame_003.tif"
        found = [[float(row["y_px"]), float(row["x_px"])] for row in rows]
        assert np.allclose(found, corners, atol=1e-6)
    record = json.loads((folder / "scan.json").read_text())
    assert (record["grid"], record["overlap"]) == ([2, 2], 0.35)


def test_object_and_a_mosaic_of_the_good_frames_lie_where_the_frames_lie(folder, truth):
    drawn = read(folder / "truth" / "object.ome.tif")
    assert drawn.pixel_size_nm == pytest.approx((10, 10))
    origin = np.array(truth["object_origin_px"]) * 20
    assert drawn.origin == pytest.approx(tuple(origin))
    good = [
        [float(row["y_px"]), float(row["x_px"])]
        for row in rows_of(folder / "truth" / "positions.csv")
        if row["frame"].removesuffix(".tif") not in truth["bad_frames"]
    ]
    assert truth["mosaic_origin_px"] == pytest.approx(np.min(good, axis=0), abs=1e-6)


def test_view_comes_as_an_instrument_gives_it_and_its_map_as_truth(folder):
    view = read(folder / "sem" / "view.tif")
    assert (view.dtype, view.origin) == (np.uint8, (0, 0))
    assert view.pixel_size_nm == pytest.approx((8, 8))
    stored = read_transform(folder / "truth" / "view.json")
    assert stored.kind == "elastic"
    assert stored.moving.describe_difference(view) is None
    for path in ("truth/object.ome.tif", "sem/sem.ome.tif"):
        assert stored.fixed.describe_difference(read(folder / path)) is None


def test_image_gives_its_pixel_size(tmp_path, scene):
    sizes = {"frames_grid": "1x2", "frame_px": 48, "jitter_px": 1}
    said = {"positions": "nm", "pixel_size_error": 0.1}
    done = napari_semsr.simulate(tmp_path, scene.truth, **sizes, **said)
    assert done.frames == 2
    assert done.pixel_size_nm == pytest.approx((10, 10))
    second = rows_of(tmp_path / "positions.csv")[1]
    assert float(second["x_nm"]) == pytest.approx(48 * 0.65 * 10)
    said = json.loads((tmp_path / "scan.json").read_text())
    assert said["pixel_size_nm"] == pytest.approx(11)


@pytest.mark.skipif(sys.platform == "win32", reason="open folders are not renamed")
@pytest.mark.parametrize("existing", [False, True])
def test_scan_appears_at_once_and_replaces_the_earlier_one_at_once(
    tmp_path, existing, monkeypatch
):
    target, small = tmp_path / "scan", SimulateOptions(**SIZES | {"frames_grid": "1x2"})
    if existing:
        run(SIMULATE.job(out_dir=target, options=SimulateOptions(**SIZES)))
    before = digest_path(target) if existing else None
    with monkeypatch.context() as patch:
        patch.setattr(io, "move", interrupt)
        patch.setattr(Path, "replace", interrupt_at(target))
        with pytest.raises(KeyboardInterrupt):
            run(SIMULATE.job(out_dir=target, options=small, overwrite=True))
    assert list(tmp_path.iterdir()) == ([target] if existing else [])
    assert not existing or digest_path(target) == before


def test_folder_of_other_things_is_never_replaced(tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "thesis.txt").write_text("precious")
    with refused(WriteError, "foreign-files"):
        run(SIMULATE.job(out_dir=tmp_path / "scan", overwrite=True))


def test_stopped_work_leaves_nothing(tmp_path):
    job = SIMULATE.job(out_dir=tmp_path / "scan", options=SimulateOptions(**SIZES))
    stop_at(job, "writing frame_002")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"phantom": "pits"}, "options-contradict"),
        ({"sem_view": True}, "options-contradict"),
        ({"view_mirror": True}, "option-without-effect"),
        ({"focal_series": 1}, "out-of-range"),
    ],
    ids=["both", "view", "options of a view", "focal"],
)
def test_what_cannot_be_had_is_refused_at_once(tmp_path, scene, options, code):
    with refused(OptionError, code):
        napari_semsr.simulate(tmp_path / "scan", scene.truth, **options)
    assert list(tmp_path.iterdir()) == []


def test_scan_beyond_memory_is_refused_by_the_options_that_make_it_large(tmp_path):
    options = SimulateOptions(frames_grid=(300, 300))
    with refused(DeviceMemoryError, "memory", match=r"300 x 300.*`frames_grid`, `f"):
        run(SIMULATE.job(out_dir=tmp_path / "scan", options=options))
    assert not list(tmp_path.iterdir())
