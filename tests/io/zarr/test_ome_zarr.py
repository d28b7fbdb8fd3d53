"""OME-Zarr written by others, in both layouts, whole and damaged."""

import json
import warnings

import numpy as np
import pytest
import zarr

from napari_semsr.core.errors import ReadError, WriteError
from napari_semsr.io import formats as registry
from napari_semsr.io.zarr.image import warn_about_missing_blocks
from napari_semsr.io.zarr.store import create_store, read_store_state
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
        chunks=None,
        steps=None,
    ):
        path = tmp_path / name
        data = rng.integers(0, 250, shape).astype(np.uint16)
        group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
        datasets = []
        for level in range(2):
            step = 2**level
            part = data[..., ::step, ::step]
            array = group.create_array(
                str(level),
                shape=part.shape,
                dtype=part.dtype,
                chunks=chunks or (16,) * part.ndim,
            )
            array[...] = part
            full = [1.0] * (part.ndim - 2) + [scale * step] * 2
            placed = [{"type": "scale", "scale": full}]
            if shift is not None:
                placed.append({"type": "translation", "translation": shift})
            if steps is not None:
                placed = steps[level] if isinstance(steps, tuple) else steps
            datasets.append({"path": str(level), "coordinateTransformations": placed})
        kinds = {"c": "channel", "t": "time"}
        described = []
        for axis in axes:
            item = {"name": axis, "type": kinds.get(axis, "space")}
            if axis in "yx" and unit is not None:
                item["unit"] = unit
            described.append(item)
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
    assert info.format == f"OME-Zarr {version}"
    assert info.levels == 2
    found = registry.read(path)
    assert found.is_lazy
    assert found.pixel_size_nm == (5.0, 5.0)
    assert found.name == "theirs"
    assert np.array_equal(found.array(), data)
    coarse = registry.read(path, level=1)
    assert coarse.pixel_size_nm == (10.0, 10.0)
    assert np.array_equal(coarse.array(), data[::2, ::2])


def test_read_asks_for_channel_and_plane(foreign):
    path, data = foreign((2, 3, 4, 20, 24), axes="tczyx")
    info = registry.describe(path)
    assert (info.channels, info.planes) == (3, 8)
    with refused(ReadError, "several-images", match="3 channels"):
        registry.read(path, plane=0)
    with refused(ReadError, "several-images", match="8 planes"):
        registry.read(path, channel=0)
    found = registry.read(path, channel=2, plane=5)
    assert np.array_equal(found.array(), data[1, 2, 1])


def test_read_places_the_image(foreign):
    common = [{"type": "scale", "scale": [2.0, 2.0]}]
    path, _ = foreign(common=common, shift=[1.0, 3.0])
    found = registry.read(path)
    assert found.pixel_size_nm == (10.0, 10.0)
    assert found.origin == pytest.approx((2000.0, 6000.0))


@pytest.mark.parametrize("unit", [None, "pixel", "second", "parsec", 5])
def test_read_never_invents_a_pixel_size(foreign, unit):
    path, _ = foreign(unit=unit, scale=0.5)
    with warned("pixel-size-invalid"):
        found = registry.read(path, level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (2.0, 2.0)


def test_pixels_that_are_counted_are_no_fault(foreign):
    path, _ = foreign(unit=None, scale=1.0)
    assert registry.read(path, level=1).pixel_size_nm is None
    assert registry.describe(path).pixel_size_nm is None


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e300])
def test_read_leaves_a_bad_scale_unknown_and_says_so(foreign, scale):
    path, data = foreign(scale=scale)
    with warned("pixel-size-invalid"):
        found = registry.read(path)
    assert found.pixel_size_nm is None
    assert "left unknown" in found.metadata["warnings"][0]
    assert np.array_equal(found.array(), data)


def scaled(*numbers):
    return {"type": "scale", "scale": list(numbers)}


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        *(
            (steps, "pixel-size-invalid")
            for steps in (
                [scaled(0.1)],
                [scaled(1, 0.1, 0.1)],
                [scaled(0.1, "0.1")],
                [scaled(0.1, None)],
                [scaled(0.1, float("nan"))],
                [scaled(0.1, 10**400)],
                [scaled(True, True)],
                [{"type": "scale", "path": "scales"}],
                [{"type": "scale"}],
                [{"type": "sequence", "transformations": [scaled(0.1)]}],
            )
        ),
        ([{"type": "identity"}], "pixel-size-missing"),
        ([], "pixel-size-missing"),
        *(
            (steps, "transform-unsupported")
            for steps in (
                [{"scale": [0.1, 0.1]}],
                5,
                "scale",
                [
                    scaled(0.1, 0.1),
                    {"type": "affine", "affine": [[2, 0, 0], [0, 2, 0]]},
                ],
                [scaled(0.1, 0.1), {"type": "rotation", "rotation": [[0, -1], [1, 0]]}],
                [
                    scaled(0.1, 0.1),
                    {"type": "mapAxis", "mapAxis": {"y": "x", "x": "y"}},
                ],
            )
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_a_level_says_wrongly_of_its_scale_is_no_size(
    foreign, steps, code, version
):
    path, data = foreign(steps=steps, version=version)
    with warned(code):
        found = registry.read(path)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (1.0, 1.0)
    assert np.array_equal(found.array(), data)
    assert registry.describe(path).pixel_size_nm is None


def test_a_rotation_is_told_even_where_a_size_is_typed(foreign):
    turned = {"type": "rotation", "rotation": [[0, -1], [1, 0]]}
    path, _ = foreign(common=[turned])
    for size in (None, 3.0):
        with warned("transform-unsupported", match="'rotation'") as heard:
            found = registry.read(path, pixel_size_nm=size)
        assert len(heard) == 1
        assert found.pixel_size_nm == (size and (size, size))


@pytest.mark.parametrize("shift", [[1.0], [1.0, "a"], [0.0, 1.0, 2.0], "a"])
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
    how = {"level": 1, "pixel_size_nm": 5, "databar_rows": 10}
    assert registry.read(path, **how).pixel_size_nm == (10.0, 10.0)
    assert registry.read(path, **how).shape == (15, 25)


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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = registry.read(path)
    sentences = " ".join(str(one.message) for one in caught)
    assert "OME-Zarr 0.6 is not fully supported (supported: 0.1 to 0.5)" in sentences
    assert "Additional coordinate systems of the image are ignored" in sentences
    assert found.pixel_size_nm == (100.0, 100.0)


def test_read_chooses_an_image_of_a_collection(foreign, tmp_path):
    root = zarr.create_group(tmp_path / "all.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    _, first = foreign(name="all.zarr/0")
    _, second = foreign(name="all.zarr/1")
    assert registry.describe(tmp_path / "all.zarr").series == 2
    for series, data in enumerate((first, second)):
        found = registry.read(tmp_path / "all.zarr", series=series)
        assert np.array_equal(found.array(), data)


@pytest.mark.parametrize(
    ("attributes", "code", "value"),
    [
        ({}, "no-image", None),
        ({"multiscales": "x"}, "no-image", None),
        ({"multiscales": [5]}, "no-image", None),
        ({"plate": {}}, "several-images", None),
        ({"labels": ["cells"]}, "several-images", "'cells'"),
        ({"multiscales": [{"datasets": []}]}, "metadata-damaged", None),
        ({"multiscales": [{"datasets": 5}]}, "metadata-damaged", None),
        ({"multiscales": [{"datasets": ["0"]}]}, "metadata-damaged", None),
        ({"multiscales": [{"datasets": [{}]}]}, "metadata-damaged", None),
        ({"multiscales": [{"datasets": [{"path": "9"}]}]}, "plane-missing", "'9'"),
        *(
            (
                {"multiscales": [{"datasets": [{"path": path}]}]},
                "outside-folder",
                None,
            )
            for path in ("../a.zarr/0", "/0", "C:\\0", "", "0/../../0")
        ),
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, "axis-missing", None),
        *(
            (
                {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]},
                "axis-missing",
                None,
            )
            for axes in ([1, 2], ["x", "y"], ["y"], ["x", "x"], 5, [None, {}])
        ),
    ],
)
def test_read_refuses_stores_with_damaged_metadata(tmp_path, attributes, code, value):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=(4, 4), dtype="u1", chunks=(4, 4))
    group.attrs.update(attributes)
    for verb in (registry.read, registry.describe):
        with refused(ReadError, code, match=value) as caught:
            verb(tmp_path / "a.zarr")
        assert "\n" not in str(caught.value)


def test_read_refuses_a_bare_array(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4), dtype="u1", chunks=(4, 4))
    with refused(ReadError, "no-image"):
        registry.read(tmp_path / "a.zarr")


@pytest.mark.parametrize(("version", "block"), [("0.4", "0.1"), ("0.5", "c/0/1")])
def test_blocks_without_a_file_are_told(foreign, version, block):
    path, _ = foreign(version=version)
    warn_about_missing_blocks(path)
    (path / "0" / block).unlink()
    (path / "1" / block).unlink()
    (path / "0" / block).with_name("Thumbs.db").touch()  # which is no block
    with warned("blocks-missing", match="^1 of 12 .* 0: "):
        warn_about_missing_blocks(path)
    with warned("blocks-missing", match="^1 of 4 "):
        warn_about_missing_blocks(path, level=1)


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


@pytest.mark.parametrize(
    "omero",
    [
        5,
        {"channels": 5},
        {"channels": [{"window": {"start": 0, "end": 10**400}}]},
        {"channels": [{"window": {"start": 5, "end": 2}}]},
        {"channels": [{"window": {"start": float("nan"), "end": 2}}]},
    ],
    ids=["number", "channels", "large", "reversed", "nan"],
)
def test_a_window_that_is_none_is_left_out(foreign, omero):
    path, data = foreign()
    zarr.open_group(path, mode="r+").attrs["omero"] = omero
    found = registry.read(path)
    assert np.array_equal(found.array(), data)
    assert found.look is None


SPOILT = {
    "a shape without end": ("0.5", "0/zarr.json", {"shape": [10**400, 10**400]}),
    "no chunks": ("0.5", "0/zarr.json", {"chunk_grid": {"name": "regular"}}),
    "a fill value without end": ("0.5", "0/zarr.json", {"fill_value": 10**30}),
    "a shape of text": ("0.4", "0/.zarray", {"shape": "large"}),
    "chunks of text": ("0.4", "0/.zarray", {"chunks": "large"}),
    "no type": ("0.4", "0/.zarray", {"dtype": None}),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_metadata_of_an_array_are_a_sentence(foreign, name):
    version, mark, change = SPOILT[name]
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


def test_a_record_of_numbers_without_end_is_none(foreign):
    path, data = foreign()
    record = {"record": 1, "name": "a", "pixel_size_nm": None, "origin": [10**400, 0]}
    record |= {"spacing_px": [1, 1]}
    own = {"complete": True, "napari-semsr": record}
    zarr.open_group(path, mode="r+").attrs["semsr"] = own
    assert read_store_state(path)[0] is None
    assert np.array_equal(registry.read(path).array(), data)
