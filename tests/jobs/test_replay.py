"""Outputs replayed from their histories, and what is said of those that differ."""

import shutil
import tempfile

import pytest
import zarr

import napari_semsr as semsr
from napari_semsr.core import ReadError, run
from napari_semsr.io import open_frames, read, write
from napari_semsr.jobs import REPLAY, save_image, simulate_exposure, simulate_specimen
from napari_semsr.jobs.stitch import digest_scan
from tests.refusals import refused
from tests.remade import KINDS, Place

CPU = {"device": "cpu", "precision": "fp32", "tile": 64}


@pytest.fixture(autouse=True)
def _beside(tmp_path, monkeypatch):
    """Make again where a test can look."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))


@pytest.fixture
def place(tmp_path):
    """A folder with two exposures of one specimen."""
    folder = tmp_path / "place"
    (folder / "raw").mkdir(parents=True)
    truth = simulate_specimen((112, 128), seed=3)
    for number, name in enumerate(("a", "b")):
        image = simulate_exposure(truth, noise_seed=number, name=name)
        write(image.replace(provenance=None), folder / "raw" / f"{name}.tif")
    return folder


@pytest.fixture
def a(place):
    return place / "raw" / "a.tif"


@pytest.fixture
def cut(place, a):
    semsr.crop(a, place / "cut.ome.zarr", box=(5, 6, 70, 80))
    return place / "cut.ome.zarr"


@pytest.fixture
def part(place, a):
    semsr.crop(a, place / "o.tif", box=(5, 6, 70, 80))
    return place / "o.tif"


def said(report, what):
    return [item.said for item in report.differs if item.what == what]


def spoil(path, by=1):
    """Change one pixel of a file or store."""
    if path.suffix == ".zarr":
        level = zarr.open_group(path, mode="r+")["0"]
        level[7, 9] = level[7, 9] + by
        return
    image = read(path)
    data = image.array().copy()
    data[7, 9] += by
    write(image.replace(data=data), path, overwrite=True)


def retell(path, **changes):
    """Change what a file says of its making."""
    image = read(path)
    told = image.provenance.model_copy(update=changes)
    write(image.replace(provenance=told), path, overwrite=True)


def scan_of(folder, **options):
    semsr.simulate(
        folder, phantom="pits", frames_grid=(2, 2), frame_px=96, overlap=0.5,
        jitter_px=2, field="square", photons=4000, **options,
    )  # fmt: skip
    return folder


@pytest.mark.quick(3)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_output_of_each_kind_is_identical(kind, tmp_path):
    at = Place(tmp_path / "place", seed=1)
    KINDS[kind](at, 1)
    before = sorted(at.folder.rglob("*"))
    found = semsr.replay(at.out)
    assert found.identical, found.differs
    assert (found.differs, found.max_abs_difference, found.different) == ((), 0.0, 0)
    assert sorted(at.folder.rglob("*")) == before
    assert list((tmp_path / "scratch").iterdir()) == []


def test_one_pixel_is_found(cut):
    spoil(cut, by=3)
    found = semsr.replay(cut)
    assert not found.identical
    assert (found.different, found.max_abs_difference) == (1, 3.0)
    assert found.where == (7, 9)
    (sentence,) = said(found, "pixels")
    assert "1 of 4810 pixels differ, by up to 3, at row 7, column 9" in sentence


def test_other_shape_and_calibration_are_told(place, a):
    path = place / "o.ome.tif"
    semsr.crop(a, path, box=(0, 0, 60, 60))
    image = read(path)
    smaller = image.replace(data=image.array()[:50], pixel_size_nm=20)
    write(smaller, path, overwrite=True)
    found = semsr.replay(path)
    assert found.max_abs_difference is None
    assert "50 x 60 px as stored, but 60 x 60 px" in said(found, "pixels")[0]
    [size] = said(found, "calibration")
    assert "The pixel size is 20, 20 nm in the stored output, but 10, 10 nm" in size


def test_other_input_is_named_with_both_digests(cut, a):
    spoil(a)
    (sentence,) = said(semsr.replay(cut), "input")
    assert sentence.startswith("The image a.tif has changed: sha256:")


def test_intermediate_that_is_made_again_with_equal_pixels_is_no_difference(place, a):
    middle, path = place / "middle.ome.zarr", place / "o.tif"
    semsr.crop(a, middle, box=(5, 6, 70, 80))
    semsr.restore(middle, path, psf="1px")
    shutil.rmtree(middle)
    found = semsr.replay(path)
    assert (found.identical, found.differs) == (True, ())
    spoil(path)
    assert [item.what for item in semsr.replay(path).differs] == ["pixels", "input"]


def test_input_is_found_by_its_digest_before_a_wrong_one_of_its_name(cut, a, tmp_path):
    shelf = tmp_path / "shelf" / "deep"
    shelf.mkdir(parents=True)
    shutil.copy(a.with_name("b.tif"), shelf / "a.tif")  # the name is no proof
    shutil.copy(a, shelf / "other.tif")
    spoil(a)
    for wrong_in_its_place in (True, False):
        found = semsr.replay(cut, inputs=tmp_path / "shelf")
        assert (found.identical, found.differs) == (True, ())
        if wrong_in_its_place:
            a.unlink()


def test_missing_input_is_one_sentence_with_digest_and_remedy(cut, a):
    digest = read(cut).provenance.inputs[0].digest
    a.unlink()
    values = f"'a.tif' .{digest}.*`inputs`"
    with refused(ReadError, "file-missing", match=values):
        semsr.replay(cut)


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_of_the_system_are_no_input_of_a_scan(place):
    scan, mosaic = scan_of(place / "scan"), place / "mosaic.ome.zarr"
    semsr.stitch(scan, mosaic)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._frame_000.tif", "a.tmp"):
        (scan / name).write_bytes(b"x")
    frames = read(mosaic).provenance.inputs[0]
    assert run(digest_scan(scan, run(open_frames(scan)))) == frames.digest
    spoil(scan / "frame_001.tif")
    [told] = said(semsr.replay(mosaic), "input")
    assert told.startswith("The frames scan has changed")


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_scan_whose_damaged_list_was_ignored_is_replayed_without_the_list(place):
    folder, path = scan_of(place / "scan"), place / "o.tif"
    (folder / "positions.csv").unlink()
    table = folder / "TileConfiguration.txt"
    table.write_text("dim = 9")
    semsr.stitch(folder, path, positions="none")
    history = read(path).provenance
    retell(path, options={**history.options, "positions": None})  # by older versions
    with refused(ReadError, "positions-invalid", match="move their file out"):
        run(REPLAY.job(path))
    table.rename(place / table.name)
    report = semsr.replay(path)
    assert (report.identical, report.differs) == (True, ())


def test_other_version_and_threads_are_named(part):
    versions = {**read(part).provenance.versions, "numpy": "1.0"}
    retell(part, versions=versions, threads=999)
    found = semsr.replay(part)
    assert found.identical
    assert [item.name for item in found.differs] == ["numpy", "threads"]
    assert "numpy 1.0, but replayed with" in said(found, "version")[0]


def test_other_model_is_named_and_one_that_is_nowhere_refused(place, a):
    path = place / "o.tif"
    semsr.enhance(a, path, **CPU)
    assert read(path).provenance.precision == "fp32"
    retell(path, model_digest="sha256:" + "0" * 64)
    (sentence,) = said(semsr.replay(path), "model")
    assert "sem-restore has changed: the output was created with sha256:000" in sentence
    retell(path, model_name="gone", model_digest="sha256:1", guides=())
    with refused(ReadError, "file-missing", match=r"'gone\.safetensors' .sha256:1"):
        semsr.replay(path)


UNFOLLOWED = {
    "left": ({"job": "trust"}, "former-name"),
    "unknown": ({"job": "knit"}, "history-unknown"),
    "window": (
        {"job": "frc-map", "options": {"difference": ["a", "b"]}},
        "history-unknown",
    ),
    "part": ({"job": "simulate"}, "history-incomplete"),
    "inputs": ({"inputs": ()}, "history-incomplete"),
    "reading": ({"job": "degrade", "options": {"reading": [1]}}, "file-damaged"),
    "lacking": ({"job": "register", "options": {}}, "history-incomplete"),
    "wrong": ({"job": "gold", "options": {"seed": "a"}}, "history-unknown"),
}
SIZE = {"shape": [100, 100], "seed": 1}
FRAMES = {"job": "simulate", "part": "a.tif"}
TOO_LARGE = {
    "specimen": {"job": "specimen", "options": {**SIZE, "shape": [30000, 30000]}},
    "output": {"job": "specimen", "options": SIZE},
    "frames": {**FRAMES, "options": {"frames_grid": "1000x1000"}},
    "scene": {**FRAMES, "options": {"jitter_px": 1e9}},
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", UNFOLLOWED)
def test_history_that_cannot_be_followed_is_one_sentence(part, name):
    change, code = UNFOLLOWED[name]
    retell(part, **change)
    with refused(ReadError, code):
        semsr.replay(part)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", TOO_LARGE)
def test_no_more_is_drawn_than_belongs_to_the_output(part, name):
    retell(part, **TOO_LARGE[name])
    with refused(ReadError, "image-too-large"):
        semsr.replay(part)


@pytest.mark.quick(1)
@pytest.mark.parametrize("part", ["/proc/self/cwd/o.tif", "../../place/o.tif", ""])
def test_output_is_compared_with_nothing_but_what_is_made_again(
    place, a, part, monkeypatch
):
    path = place / "o.tif"
    shutil.copy(scan_of(place / "scan") / "frame_000.tif", path)
    spoil(path)
    monkeypatch.chdir(place)
    for told in (part, str(path)):
        retell(path, part=told)
        with refused(ReadError, "history-damaged"):
            semsr.replay(path)


def test_inputs_are_made_again_in_the_scratch_folder_alone(place, a, tmp_path):
    specimen = simulate_specimen((64, 72), seed=1)
    run(save_image(simulate_exposure(specimen, name="x"), place / "o.tif"))
    history = read(place / "o.tif").provenance
    record = history.inputs[0].model_copy(update={"role": "truth/../../../away"})
    assert record.digest is None
    retell(place / "o.tif", inputs=(record,), job="degrade", options={"kind": "blur"})
    semsr.replay(place / "o.tif")
    assert not list(tmp_path.glob("away*"))


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("change", "code"),
    [({"threads": 10**12}, "out-of-range"), ({"device": "cuda:abc"}, "file-damaged")],
    ids=str,
)
def test_a_machine_that_cannot_be_is_one_sentence(place, a, change, code):
    semsr.enhance(a, place / "o.tif", model="sem-restore", **CPU)
    retell(place / "o.tif", **change)
    with refused(ReadError, code):
        semsr.replay(place / "o.tif")


def test_cancelled_replay_leaves_nothing(cut, tmp_path):
    job = REPLAY.job(cut)
    steps = [next(job) for _ in range(6)]
    assert steps
    assert list((tmp_path / "scratch").iterdir())
    job.close()
    assert list((tmp_path / "scratch").iterdir()) == []
