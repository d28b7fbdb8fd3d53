"""OME-Zarr written by others, in both layouts, whole and damaged."""

import json

import numpy as np
import pytest
import zarr

from napari_semsr.core.errors import ReadError, WriteError
from napari_semsr.core.progress import capture_warnings
from napari_semsr.io import formats as registry
from napari_semsr.io.zarr_image import list_series, warn_about_missing_blocks
from napari_semsr.io.zarr_store import create_store, read_store_state
from napari_semsr.jobs.images import open_image
from tests.refusals import refused, warned


@pytest.fixture
def foreign(tmp_path, rng):
    """Write a store as others do."""

    def write(
        shape=(40, 50),
        *,
        axes="yx",
        unit="micrometer",
        scale=0.005,
        version="0.4",
        common=None,
        shift=None,
        name="a.ome.zarr",
        steps=None,
    ):
        path = tmp_path / name
        data = rng.integers(0, 250, shape).astype(np.uint16)
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        datasets = []
        for level in range(2):
            part = data[..., :: 2**level, :: 2**level]
            group.create_array(str(level), data=part, chunks=(16,) * part.ndim)
            full = [1.0] * (part.ndim - 2) + [scale * 2**level] * 2
            placed = [{"type": "scale", "scale": full}]
            if shift is not None:
                placed.append({"type": "translation", "translation": shift})
            if steps is not None:
                placed = steps[level] if isinstance(steps, tuple) else steps
            datasets.append({"path": str(level), "coordinateTransformations": placed})
        kinds = {"c": "channel", "t": "time"}
        described = [{"name": one, "type": kinds.get(one, "space")} for one in axes]
        for item in described:
            if item["name"] in "yx" and unit is not None:
                item["unit"] = unit
        image = {"axes": described, "datasets": datasets, "name": "theirs"}
        if common is not None:
            image["coordinateTransformations"] = common
        if version == "0.4":
            group.attrs["multiscales"] = [{**image, "version": "0.4"}]
        else:
            group.attrs["ome"] = {"version": version, "multiscales": [image]}
        return path, data

    return write


@pytest.mark.parametrize(
    ("version", "unit", "scale"),
    [("0.4", "micrometer", 0.005), ("0.5", "angstrom", 50.0)],
)
def test_read_takes_both_versions_lazily(foreign, version, unit, scale):
    path, data = foreign(version=version, unit=unit, scale=scale)
    info = registry.describe(path)
    assert (info.format, info.levels) == (f"OME-Zarr {version}", 2)
    found = registry.read(path)
    assert (found.is_lazy, found.name) == (True, "theirs")
    assert found.pixel_size_nm == (5.0, 5.0)
    assert np.array_equal(found.array(), data)
    coarse = registry.read(path, level=1)
    assert coarse.pixel_size_nm == (10.0, 10.0)
    assert np.array_equal(coarse.array(), data[::2, ::2])


def test_a_plane_of_too_many_blocks_is_refused(foreign, monkeypatch):
    path, *_ = foreign((40, 40, 50), axes="zyx")  # 3 times 3 x 4 blocks
    limit = "napari_semsr.io.zarr_image._MAX_BLOCKS"
    monkeypatch.setattr(limit, 12)
    assert registry.read(path, plane=0).shape == (40, 50)
    monkeypatch.setattr(limit, 11)
    with refused(ReadError, "too-many-blocks"):
        registry.read(path, plane=0)


def test_read_places_the_image(foreign):
    common = [{"type": "scale", "scale": [2.0, 2.0]}]
    path, _ = foreign(common=common, shift=[1.0, 3.0])
    found = registry.read(path)
    assert found.pixel_size_nm == (10.0, 10.0)
    assert found.origin == pytest.approx((2000.0, 6000.0))


@pytest.mark.parametrize("unit", [None, "pixel", "parsec", 5])
def test_read_never_invents_a_pixel_size(foreign, unit):
    path, _ = foreign(unit=unit, scale=0.5)
    with warned("pixel-size-invalid"):
        found = registry.read(path, level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (2.0, 2.0)
    path, _ = foreign(unit=None, scale=1.0, name="counted.zarr")  # no fault
    assert registry.read(path, level=1).pixel_size_nm is None


def scaled(*numbers):
    return {"type": "scale", "scale": list(numbers)}


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ([scaled(0.1)], "pixel-size-invalid"),
        ([scaled(0.1, "0.1")], "pixel-size-invalid"),
        ([scaled(0.1, -1)], "pixel-size-invalid"),
        ([scaled(True, True)], "pixel-size-invalid"),
        ([scaled(0.1, 10**400)], "pixel-size-invalid"),
        ([{"type": "scale", "path": "scales"}], "pixel-size-invalid"),
        ([{"type": "identity"}], "pixel-size-missing"),
        (5, "transform-unsupported"),
        ([scaled(0.1, 0.1), {"type": "affine"}], "transform-unsupported"),
    ],
    ids=str,
)
def test_what_a_level_says_wrongly_of_its_scale_is_no_size(foreign, steps, code):
    path, data = foreign(steps=steps)
    with warned(code):
        found = registry.read(path)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (1.0, 1.0)
    assert np.array_equal(found.array(), data)


@pytest.mark.parametrize("shift", [[1.0], [1.0, "a"], "a"])
def test_a_wrong_translation_leaves_the_size(foreign, shift):
    path, _ = foreign(shift=shift)
    with warned("place-unknown", match=" 0 .* 2 "):
        found = registry.read(path)
    assert found.pixel_size_nm == (5.0, 5.0)
    assert found.origin == (0.0, 0.0)


def test_identity_and_sequence_are_followed(foreign):
    moved = {"type": "translation", "translation": [1, 2]}
    inner = [scaled(0.1, 0.2), moved]
    steps = [{"type": "identity"}, {"type": "sequence", "transformations": inner}]
    path, _ = foreign(steps=steps)
    found = registry.read(path)
    assert found.pixel_size_nm == (100.0, 200.0)
    assert found.origin == (1000.0, 2000.0)


@pytest.mark.parametrize("coarse", [0.1, 0.4, 0.15])
def test_a_scale_that_contradicts_the_shape_is_no_size(foreign, coarse):
    path, data = foreign(steps=([scaled(0.1, 0.1)], [scaled(coarse, coarse)]))
    assert registry.read(path).pixel_size_nm == (100.0, 100.0)
    with warned("pixel-size-contradicts", match=" 20 of 40 rows"):
        found = registry.read(path, level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (2.0, 2.0)
    assert np.array_equal(found.array(), data[::2, ::2])
    found = registry.read(path, level=1, pixel_size_nm=5, databar_rows=10)
    assert (found.pixel_size_nm, found.shape) == ((10.0, 10.0), (15, 25))


@pytest.mark.parametrize("shape", [(41, 51), (40, 50), (3, 5)])
def test_levels_of_odd_sides_contradict_nothing(foreign, shape):
    path, _ = foreign(shape, steps=([scaled(0.1, 0.1)], [scaled(0.2, 0.2)]))
    assert registry.read(path, level=1).pixel_size_nm == (200.0, 200.0)


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_versions_without_scales_are_read_without_a_size(tmp_path, version):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    shape = (1, 1, 1, 8, 8) if version < "0.3" else (8, 8)
    for level in range(2):
        sides = [side >> level or 1 for side in shape]
        group.create_array(str(level), shape=sides, dtype="u1", chunks=sides)
    image = {"version": version, "datasets": [{"path": "0"}, {"path": "1"}]}
    axes = {"axes": ["y", "x"]} if version == "0.3" else {}
    group.attrs["multiscales"] = [{**image, **axes}]
    assert registry.describe(tmp_path / "a.zarr").format == f"OME-Zarr {version}"
    found = registry.read(tmp_path / "a.zarr", level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (2.0, 2.0)


def test_a_newer_version_is_read_with_a_warning(foreign):
    path, _ = foreign(version="0.6", steps=[scaled(0.1, 0.1)])
    marks = path / "zarr.json"
    about = json.loads(marks.read_text("utf-8"))
    image = about["attributes"]["ome"]["multiscales"][0]
    image["coordinateSystems"] = [{"name": "own", "axes": image.pop("axes")}]
    image["coordinateTransformations"] = [{"type": "affine", "affine": []}]
    marks.write_text(json.dumps(about), "utf-8")
    with capture_warnings((heard := []).append):
        found = registry.read(path)
    sentences = " ".join(heard)
    assert "OME-Zarr 0.6 is not fully supported (supported: 0.1 to 0.5)" in sentences
    assert "Additional coordinate systems of the image are ignored" in sentences
    assert found.pixel_size_nm == (100.0, 100.0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_a_collection_have_the_names_and_order_it_lists(
    foreign, tmp_path, version
):
    path = tmp_path / "all.zarr"
    layout = {"bioformats2raw.layout": 3}
    root = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    root.attrs.update(layout if version == "0.4" else {"ome": layout})
    names = ["whole", "1", "0"]  # unlisted, those with numbers are found
    written = [foreign(name=f"all.zarr/{n}", version=version)[1] for n in names]
    index = root.create_group("OME")

    def lists(names):
        listed = {"series": names}
        index.attrs.update(listed if version == "0.4" else {"ome": listed})

    assert np.array_equal(registry.read(path, series=1).array(), written[1])
    assert registry.describe(path).series == 2
    lists(names)
    assert list_series(path) == [path / name for name in names]
    with warned("several-images", match=r"3 images, and the first \(whole\) is used"):
        found = open_image(path)
    assert np.array_equal(found.array(), written[0])
    for series, data in enumerate(written):
        assert np.array_equal(registry.read(path, series=series).array(), data)
    with refused(ReadError, "plane-missing"):
        registry.read(path, series=3)
    for names in (["0", "lost"], ["../all.zarr/0"], {"0": 1}):
        lists(names)
        with refused(ReadError, "metadata-damaged"):
            registry.read(path)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_each_array_is_read_by_its_own_metadata(foreign, tmp_path, version):
    zarr.create_group(tmp_path / "all.zarr", zarr_format=2 if version == "0.4" else 3)
    place, data = foreign(name="all.zarr/0", version=version, scale=0.01)
    zarr.consolidate_metadata(place)
    zarr.consolidate_metadata(place.parent)
    group = zarr.open_group(place, mode="r+", use_consolidated=False)
    taller = np.vstack([data, data])
    group.create_array("0", data=taller, chunks=(16, 16), overwrite=True)
    mark = place / (".zattrs" if version == "0.4" else "zarr.json")
    head, copied, copy = mark.read_text().partition('"consolidated_metadata"')
    mark.write_text(
        head.replace("0.01,", "0.03,").replace("0.01\n", "0.03\n") + copied + copy
    )
    for path in (place, place.parent):
        found = registry.read(path)
        assert found.pixel_size_nm == pytest.approx((30, 30))
        assert np.array_equal(found.array(), taller)


def of(**image):
    return {"multiscales": [{"datasets": [{"path": "0"}], **image}]}


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"multiscales": [5]}, "no-image"),
        ({"plate": {}}, "several-images"),
        ({"labels": ["cells"]}, "several-images"),
        (of(datasets=[]), "metadata-damaged"),
        (of(datasets=["0"]), "metadata-damaged"),
        (of(datasets=[{}]), "metadata-damaged"),
        (of(datasets=[{"path": "9"}]), "plane-missing"),
        (of(datasets=[{"path": "/0"}]), "outside-folder"),
        (of(datasets=[{"path": "0/../../0"}]), "outside-folder"),
        (of(), "axis-missing"),
        (of(axes=["x", "y"]), "axis-missing"),
        (of(axes=["x", "x"]), "axis-missing"),
        (of(axes=[None, {}]), "axis-missing"),
    ],
    ids=str,
)
def test_read_refuses_stores_with_damaged_metadata(tmp_path, attributes, code):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=(4, 4), dtype="u1", chunks=(4, 4))
    group.attrs.update(attributes)
    with refused(ReadError, code):
        registry.read(tmp_path / "a.zarr")


@pytest.mark.parametrize("value", [None, 7])
def test_blocks_without_a_file_are_read_as_the_fill_value(foreign, value):
    path, _ = foreign()
    marks = path / "0" / ".zarray"
    about = json.loads(marks.read_text("utf-8"))
    marks.write_text(json.dumps({**about, "fill_value": value}), "utf-8")
    (path / "0" / "0.0").unlink()
    assert (registry.read(path).array()[:16, :16] == (value or 0)).all()
    with warned("blocks-missing", match=f"^1 of 12 .* {value or 0}[,:]"):
        warn_about_missing_blocks(path)


@pytest.mark.parametrize(("used", "stated"), [("/", None), (".", "/")])
def test_blocks_are_read_by_the_names_that_they_have(foreign, used, stated):
    path, data = foreign()
    marks = path / "0" / ".zarray"
    about = json.loads(marks.read_text("utf-8"))
    del about["dimension_separator"]
    about |= {"dimension_separator": stated} if stated else {}
    marks.write_text(json.dumps(about), "utf-8")
    for block in [*(path / "0").glob("[0-9].[0-9]")] * (used == "/"):
        block.parent.joinpath(block.name[0]).mkdir(exist_ok=True)
        block.rename(block.parent / block.name.replace(".", "/"))
    assert np.array_equal(registry.read(path).array(), data)
    first = path / "0" / "0" / "0"
    first.parent.mkdir(exist_ok=True)
    dotted = path / "0" / "0.0"
    dotted.rename(first) if used == "." else first.rename(dotted)
    with warned("blocks-missing", match="^11 of 12 "):
        warn_about_missing_blocks(path)


@pytest.mark.parametrize(
    ("version", "mark", "change"),
    [
        ("0.5", "0/zarr.json", {"shape": [10**400, 10**400]}),
        ("0.5", "0/zarr.json", {"chunk_grid": {"name": "regular"}}),
        ("0.5", "0/zarr.json", {"fill_value": 10**30}),
        ("0.4", "0/.zarray", {"shape": "large"}),
        ("0.4", "0/.zarray", {"dtype": None}),
    ],
    ids=["endless", "no chunks", "endless fill value", "a shape of text", "no type"],
)
def test_spoilt_metadata_of_an_array_are_a_sentence(foreign, version, mark, change):
    path, _ = foreign(version=version)
    about = json.loads((path / mark).read_text("utf-8"))
    (path / mark).write_text(json.dumps({**about, **change}), "utf-8")
    for verb in (registry.read, registry.describe):
        with pytest.raises(ReadError):
            verb(path)
    warn_about_missing_blocks(path)
    how = {"shape": (40, 50), "dtype": "uint16", "chunk": 16, "resume": True}
    with refused(WriteError, "not-resumable"):
        create_store(path, **how)
    read_store_state(path)
