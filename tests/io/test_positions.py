"""Positions of frames as Fiji and Micro-Manager write them."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import tifffile

from napari_semsr.core import ReadError, run
from napari_semsr.io import open_frames, project as hooks, write_fiji_positions
from napari_semsr.io.frames import list_scan_files
from tests.refusals import refused, warned

FIJI = """# Define the number of dimensions we are working on
dim = 2

# Define the image coordinates
a.tif; ; (0.0, 0.0)
b.tif; ; (30.5, -1.25)
"""


@pytest.fixture
def scan(tmp_path, rng):
    """Make a folder of two frames, a.tif and b.tif."""
    for name in "ab":
        frame(tmp_path / f"{name}.tif", rng)
    return tmp_path


def frame(path, rng, **tags):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, rng.integers(0, 255, (24, 40), np.uint8), **tags)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "name", ["TileConfiguration.txt", "TileConfiguration.registered.txt", "my.txt"]
)
def test_fiji_states_x_before_y_in_pixels(scan, name, end):
    table = scan / name
    table.write_text(FIJI, "utf-8", newline=end)
    found = run(open_frames(scan, positions=table if name == "my.txt" else None))
    assert found.names == ("a.tif", "b.tif")
    assert found.nominal_px.tolist() == [[0.0, 0.0], [-1.25, 30.5]]
    assert found.nominal_nm is None
    assert (table in list_scan_files(scan)) == (name != "my.txt")


def test_solved_positions_are_preferred_and_our_table_to_all(scan):
    (scan / "TileConfiguration.txt").write_text(FIJI)
    solved = FIJI.replace("30.5", "31")
    (scan / "TileConfiguration.registered.txt").write_text(solved)
    assert run(open_frames(scan)).nominal_px[1].tolist() == [-1.25, 31.0]
    (scan / "positions.csv").write_text("frame,y_px,x_px\na.tif,0,0\nb.tif,2,3\n")
    assert run(open_frames(scan)).nominal_px[1].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("old", "new", "code", "values"),
    [
        ("dim = 2", "dim = 4", "positions-invalid", "line 2 .*'dim = 4'"),
        ("dim = 2", "dim = 3", "positions-invalid", r"line 5 .*NAME; ; \(x, y, z\)"),
        ("(0.0, 0.0)", "(0.0)", "positions-invalid", "line 5 "),
        ("(0.0, 0.0)", "(nan, 0)", "positions-invalid", "line 5 "),
        ("30.5", "x", "positions-invalid", "line 6 "),
        ("b.tif; ;", "a.tif; ;", "names-alike", "a.tif"),
        ("b.tif; ;", "a.tif; 1;", "several-images", "2 images in a.tif"),
        ("b.tif", "../b.tif", "outside-folder", None),
        (FIJI, "", "positions-invalid", r"NAME; ; \(x, y\)"),
    ],
)
def test_a_malformed_table_of_fiji_is_refused(scan, old, new, code, values):
    (scan / "TileConfiguration.txt").write_text(FIJI.replace(old, new))
    with refused(ReadError, code, match=values):
        run(open_frames(scan))


def test_frames_of_several_heights_are_refused(scan):
    text = FIJI.replace("dim = 2", "dim = 3").replace("0.0)", "0.0, 5)")
    (scan / "TileConfiguration.txt").write_text(text.replace("-1.25)", "-1.25, 6)"))
    with refused(ReadError, "heights-differ"):
        run(open_frames(scan))


def test_what_is_written_for_fiji_is_read_again(scan):
    table = scan / "TileConfiguration.txt"
    write_fiji_positions(
        table, {"a.tif": (1.5, 2.0), "b.tif": (3.25, 30.0), "c.tif": None}
    )
    assert "b.tif; ; (30.000000, 3.250000)\n" in table.read_text()
    found = run(open_frames(scan))
    assert found.nominal_px.tolist() == [[1.5, 2.0], [3.25, 30.0]]


def entry(x, y, name=None, pixel=0.0125):
    stated = {"XPositionUm": x, "YPositionUm": y, "PixelSizeUm": pixel}
    return stated if name is None else {**stated, "FileName": name}


def test_folders_of_micro_manager_state_the_stage_in_micrometres(tmp_path, rng):
    name = "img_000000000_Default_000.tif"
    for number in range(2):
        place = tmp_path / f"Pos{number}"
        frame(place / name, rng)
        text = {"Summary": {}, "FrameKey-0-0-0": entry(0.3 * number, 7.5, name)}
        (place / "metadata.txt").write_text(json.dumps(text))
    found = run(open_frames(tmp_path))
    assert found.names == (f"Pos0/{name}", f"Pos1/{name}")
    assert found.nominal_nm.tolist() == [[7500.0, 0.0], [7500.0, 300.0]]
    assert found.pixel_size_nm == (12.5, 12.5)
    layers = hooks.get_reader(str(tmp_path))(str(tmp_path))
    assert layers[0][0].shape == (24, 64)


# of the tag alone, without the blocks that Micro-Manager writes before the first page
@pytest.mark.filterwarnings("ignore:scan_MMStack_Pos0")
@pytest.mark.parametrize("where", ["FrameKey-0-0-0", "tag", "Metadata-{}"])
def test_stacks_of_micro_manager(tmp_path, rng, where):
    for number in range(2):
        name = f"scan_MMStack_Pos{number}"
        stated = entry(1.0 * number, -0.5, None, 0)
        tag = [(51123, "s", 0, json.dumps(stated), True)]
        frame(tmp_path / f"{name}.ome.tif", rng, extratags=tag * (where == "tag"))
        if where != "tag":
            text = {"Summary": {}, where.format(f"{name}.ome.tif"): stated}
            (tmp_path / f"{name}_metadata.txt").write_text(json.dumps(text))
    found = run(open_frames(tmp_path))
    assert found.nominal_nm.tolist() == [[-500.0, 0.0], [-500.0, 1000.0]]
    assert found.pixel_size_nm is None


def turned(degrees, *, mirrored=False, size_um=(0.5, 0.5)):
    """Map ``(x, y)`` in px to the stage in um, of a camera that is turned."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([-1.0 if mirrored else 1.0, 1.0]) @ np.diag(size_um[::-1])


def camera_scan(folder, rng, matrix, size_um, key="PixelSizeAffine"):
    """Write three frames, 30 px apart in x and 18 px in y, as that camera sees them."""
    wanted = {"a.tif": (0.0, 0.0), "b.tif": (2.0, 30.0), "c.tif": (18.0, -1.0)}
    numbers = [*matrix[0], 0.0, *matrix[1], 0.0]
    told = {"Summary": {}}
    if key == "AffineTransform":
        told["Summary"] = {key: "_".join(map(str, matrix.T.ravel()))}
    for number, (name, (y, x)) in enumerate(wanted.items()):
        frame(folder / name, rng)
        stated = entry(*(matrix @ (x, y)), name, size_um)
        if key == "PixelSizeAffine":
            stated[key] = ";".join(map(str, numbers))
        told[f"FrameKey-{number}-0-0"] = stated
    (folder / "metadata.txt").write_text(json.dumps(told))
    return np.array(list(wanted.values()))


@pytest.mark.parametrize("key", ["PixelSizeAffine", "AffineTransform"])
@pytest.mark.parametrize("degrees", [0.4, 90, -137])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_camera_of_micro_manager(tmp_path, rng, key, degrees, mirrored):
    matrix = turned(degrees, mirrored=mirrored)
    wanted = camera_scan(tmp_path, rng, matrix, 0.5, key)
    found = run(open_frames(tmp_path))
    assert found.pixel_size_nm == (500.0, 500.0)
    np.testing.assert_allclose(found.nominal_nm / 500.0, wanted, atol=1e-9)


@pytest.mark.parametrize("size_um", [None, 0.5])
def test_pixels_of_two_sides_are_those_of_the_map(tmp_path, rng, size_um):
    wanted = camera_scan(tmp_path, rng, turned(30, size_um=(0.6, 0.4)), size_um)
    found = run(open_frames(tmp_path))
    np.testing.assert_allclose(found.pixel_size_nm, (600.0, 400.0))
    np.testing.assert_allclose(found.nominal_nm / (600.0, 400.0), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("scale", "size_um", "size_nm"),
    [(1, 0.5, 500), (1, 0, None), (0.5, 0.5, 500), (0.5, 0, 500), (0.5, None, 500)],
)
def test_the_identity_is_no_calibration_and_its_multiples_are(
    tmp_path, rng, scale, size_um, size_nm
):
    wanted = camera_scan(tmp_path, rng, scale * np.eye(2), size_um)
    found = run(open_frames(tmp_path))
    assert found.pixel_size_nm == (None if size_nm is None else (size_nm, size_nm))
    np.testing.assert_allclose(found.nominal_nm, 1000 * scale * wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ("0.2;0;0;0;0.2;0", "pixel-size-contradicts"),
        ("1;2;3", "positions-invalid"),
        ("nan;0;0;0;1;0", "positions-invalid"),
        ("1;1;0;1;1;0", "positions-invalid"),
        ([1, 0, 0, 0, 1], "positions-invalid"),
        ("0;-1;0;1;0;0", "pixel-size-contradicts"),
        ("0.5;0;0;0;-0.5;0", "frames-differ"),  # of one of the frames
        ("PixelSizeUm", "frames-differ"),
    ],
)
def test_a_map_that_cannot_be_is_refused(tmp_path, rng, changed, code):
    camera_scan(tmp_path, rng, turned(90), 0.5)
    table = tmp_path / "metadata.txt"
    stated = json.loads(table.read_text())
    for number in [1] if code == "frames-differ" else range(3):
        value = {"PixelSizeAffine": changed}
        value = {changed: 0.2} if changed == "PixelSizeUm" else value
        stated[f"FrameKey-{number}-0-0"].update(value)
    table.write_text(json.dumps(stated))
    with refused(ReadError, code):
        run(open_frames(tmp_path, positions=table))


@pytest.mark.filterwarnings("ignore:Series 0")
@pytest.mark.parametrize("preview", [False, True])
def test_images_of_one_file_are_frames_and_fiji_places_them(tmp_path, rng, preview):
    path = tmp_path / "tiles.tif"
    images = [rng.integers(0, 255, (24, 40), np.uint8) for _ in range(3)]
    with tifffile.TiffWriter(path) as writer:
        if preview:
            writer.write(images[0][::4, ::4], metadata=None)
        for number, image in enumerate(images):
            packing = "zlib" if number % 2 else None
            writer.write(image, metadata=None, contiguous=False, compression=packing)
    with warned("frames-left-out") if preview else nullcontext():
        frames = run(open_frames(path))
    assert [frames.read(number).tolist() for number in range(3)] == [
        image.tolist() for image in images
    ]
    lines = [f"tiles.tif; {number}; ({10 * number}, 0)" for number in range(3)]
    table = tmp_path / "TileConfiguration.txt"
    table.write_text("\n".join(["multiseries = true", *lines]))
    found = run(open_frames(tmp_path))
    assert found.nominal_px.tolist() == [[0, 0], [0, 10], [0, 20]]
    assert table in found.files
    table.write_text("\n".join([*lines, "tiles.tif; 3; (30, 0)"]))
    with refused(ReadError, "plane-missing", match="image 3 of"):
        run(open_frames(tmp_path))
    table.write_text("\n".join([*lines, "other.tif; 1; (30, 0)"]))
    with refused(ReadError, "several-images", match="4 images in tiles.tif, other.tif"):
        run(open_frames(tmp_path))


def test_a_damaged_list_in_the_folder_is_refused_with_the_way_on(tmp_path, rng):
    wanted = camera_scan(tmp_path, rng, turned(90), 0.5)
    table = tmp_path / "metadata.txt"
    text = table.read_text()
    table.write_text(text[:-1])  # the acquisition has not ended
    found = run(open_frames(tmp_path))
    np.testing.assert_allclose(found.nominal_nm / 500.0, wanted, atol=1e-9)
    table.write_text(text[:-2])
    with refused(ReadError, "content-invalid", match="metadata.txt .*`positions=none`"):
        run(open_frames(tmp_path))
    assert run(open_frames(tmp_path, positions="none")).nominal_corners() is None


@pytest.mark.parametrize("matrix", ["0.0;0.0;0.0;0.0;0.0;0.0", "0,0;-0,5;0;0,5;0,0;0"])
def test_zeros_are_no_calibration_and_commas_are_decimal(tmp_path, rng, matrix):
    wanted = camera_scan(tmp_path, rng, turned(90), 0.5)
    table = tmp_path / "metadata.txt"
    stated = json.loads(table.read_text())
    for number in range(3):
        value = stated[f"FrameKey-{number}-0-0"]
        value["PixelSizeAffine"] = matrix
        value["XPositionUm"] = str(value["XPositionUm"]).replace(".", ",")
    table.write_text(json.dumps(stated))
    found = run(open_frames(tmp_path))
    assert found.pixel_size_nm == (500.0, 500.0)
    turn = [[0, -1], [1, 0]] if "-" not in matrix else np.eye(2)
    np.testing.assert_allclose(found.nominal_nm / 500.0, wanted @ turn, atol=1e-9)


def test_one_of_two_position_lists_must_be_chosen(scan):
    for name in "ab":
        (scan / f"{name}.pos").write_text(json.dumps(position_list(1)))
    with refused(ReadError, "several-images", match=r"a\.pos, b\.pos.*`positions`"):
        run(open_frames(scan))


def position_list(version):
    """Two positions of a stage, as versions 1.4 and 2 of Micro-Manager save them."""
    places = {"Pos1": (0.0, 1.0), "Pos10": (30.0, 2.0)}
    if version == 1:
        rows = [
            {
                "LABEL": label,
                "DEFAULT_XY_STAGE": "XY",
                "DEVICES": [
                    {"DEVICE": "Z", "AXES": 1, "X": 5, "Y": 0},
                    {"DEVICE": "XY", "AXES": 2, "X": x, "Y": y},
                ],
            }
            for label, (x, y) in places.items()
        ]
        return {"ID": "Micro-Manager XY-position list", "POSITIONS": rows}

    def typed(value):
        kind = "scalar" if isinstance(value, str) else "array"
        return {"type": "ANY", kind: value}

    rows = []
    for label, place in places.items():
        device = {"Device": typed("XY"), "Position_um": typed(place)}
        row = {"Label": typed(label), "DefaultXYStage": typed("XY")}
        rows.append({**row, "DevicePositions": typed([device])})
    return {"map": {"StagePositions": typed(rows)}}


@pytest.mark.parametrize("version", [1, 2])
def test_a_list_of_positions_names_frames_by_their_labels(tmp_path, rng, version):
    for label in ("Pos1", "Pos10"):
        frame(tmp_path / f"scan_{label}.tif", rng)
    (tmp_path / "a.pos").write_text(json.dumps(position_list(version)))
    found = run(open_frames(tmp_path))
    assert found.names == ("scan_Pos1.tif", "scan_Pos10.tif")
    assert found.nominal_nm.tolist() == [[1000.0, 0.0], [2000.0, 30000.0]]


LISTED = json.dumps(position_list(1))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "content-invalid"),
        ("{}", "positions-invalid"),
        ('{"POSITIONS": [{"LABEL": "a"}]}', "positions-invalid"),
        (LISTED, "frames-missing"),
        (LISTED.replace("30.0", "1e999"), "positions-invalid"),
    ],
)
def test_malformed_lists_of_positions_are_refused(scan, text, code):
    (scan / "a.pos").write_text(text)
    with refused(ReadError, code):
        run(open_frames(scan))


def test_metadata_of_several_images_or_of_no_place_are_refused(scan, rng):
    metadata = scan / "metadata.txt"
    stated = {"Summary": {}, "FrameKey-0-0-0": {"FileName": "a.tif"}}
    metadata.write_text(json.dumps(stated))
    with refused(ReadError, "positions-invalid"):
        run(open_frames(scan, positions=metadata))
    assert run(open_frames(scan)).nominal_nm is None
    for number, name in enumerate(("a.tif", "b.tif", "c.tif", "d.tif")):
        frame(scan / name, rng)
        stated[f"FrameKey-{number}-0-0"] = entry(float(number // 2), 0, name)
    metadata.write_text(json.dumps(stated))
    with refused(ReadError, "several-images", match=" 4 images at 2 positions"):
        run(open_frames(scan, positions=metadata))


def ome_frames(path, rng, places, unit="µm", series=True):
    """Write frames at stage positions (y, x), as images or as times of one image."""
    frames = rng.integers(0, 255, (len(places), 24, 40), np.uint8)
    planes = [
        {"PositionY": [y], "PositionYUnit": [unit]}
        | {"PositionX": [x], "PositionXUnit": [unit]}
        for y, x in places
    ]
    with tifffile.TiffWriter(path, ome=True) as file:
        if series:
            for grey, plane in zip(frames, planes, strict=True):
                file.write(grey, metadata={"axes": "YX", "Plane": plane})
        else:
            plane = {key: [one[key][0] for one in planes] for key in planes[0]}
            file.write(frames, metadata={"axes": "TYX", "Plane": plane})


PLACES = [(-3.0, 2.5), (0.0, 0.0), (1e4, -7.0)]


@pytest.mark.parametrize("series", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_images_of_an_ome_tiff_are_frames_at_their_planes(
    tmp_path, rng, series, inside
):
    path = tmp_path / "scan.ome.tif"
    ome_frames(path, rng, PLACES, series=series)
    found = run(open_frames(tmp_path if inside else path))
    assert found.nominal_nm == pytest.approx(1000 * np.array(PLACES))
    assert run(open_frames(path, positions="none")).nominal_nm is None


def test_ome_tiffs_of_a_folder_are_frames_at_their_planes(tmp_path, rng):
    for index, place in enumerate(PLACES):
        ome_frames(tmp_path / f"f{index}.ome.tif", rng, [place], unit="mm")
    assert hooks.is_preferred_reader(str(tmp_path))
    found = run(open_frames(tmp_path))
    assert found.nominal_nm == pytest.approx(1e6 * np.array(PLACES))


@pytest.mark.parametrize(
    ("places", "unit"), [(PLACES, "reference frame"), (2 * PLACES[:2], "µm")]
)
def test_ome_positions_without_length_or_difference_are_not_used(
    tmp_path, rng, places, unit
):
    path = tmp_path / "scan.ome.tif"
    ome_frames(path, rng, places, unit)
    assert run(open_frames(path)).nominal_nm is None
