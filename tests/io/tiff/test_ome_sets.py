"""Files of an OME-TIFF set: each is its own image, of its own pixel size."""

import re

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.core import ReadError, capture_warnings, digest_path, run
from napari_semsr.io import formats as registry
from napari_semsr.jobs import Result, Step, run_step
from tests.refusals import refused

PLACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
COMPANION = '<BinaryOnly MetadataFile="{}" UUID="urn:uuid:all"/>'


def _image(number, *places, channels=1):
    """Describe an image of 10 nm times its number: file and page of each channel."""
    planes = "".join(
        f'<TiffData IFD="{page}" FirstC="{channel}" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for channel, (name, page) in enumerate(places)
    )
    return (
        f'<Image ID="Image:{number}" Name="image {number}"><Pixels ID="P:{number}" '
        f'DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="24" SizeZ="1" '
        f'SizeC="{channels}" SizeT="1" PhysicalSizeX="0.0{number}" '
        f'PhysicalSizeY="0.0{number}">{planes}</Pixels></Image>'
    )


def _document(name, content):
    uuid = "" if name is None else f' UUID="urn:uuid:{name}"'
    return f'<OME xmlns="{PLACE}"{uuid}>{content}</OME>'


def _save(path, values, text):
    """Write a page of each value, with OME-XML in the first."""
    with tifffile.TiffWriter(path) as file:
        for number, value in enumerate(values):
            about = {} if number else {"description": text}
            about["compression"] = "zlib"  # so that each read opens the file anew
            grey = np.full((24, 32), value, np.uint16)
            file.write(grey, metadata=None, contiguous=False, **about)


def _read(path, **options):
    """Read an image of one value; that, its pixel size, and what is warned of."""
    with capture_warnings((heard := []).append):
        found = registry.read(path, **options)
    (value,) = np.unique(found.array())
    size = found.pixel_size_nm
    return value, None if size is None else round(size[0], 6), heard


@pytest.fixture
def three(tmp_path):
    """Write a set of which the first file holds two images, the second one."""

    def write(names=("a", "b"), uuids=("a", "b")):
        content = _image(1, ("a", 0)) + _image(2, ("a", 1)) + _image(3, ("b", 0))
        paths = [tmp_path / f"{name}.ome.tif" for name in names]
        for path, uuid, values in zip(paths, uuids, ([11, 12], [13]), strict=True):
            _save(path, values, _document(uuid, content))
        return paths

    return write


@pytest.mark.parametrize("uuids", ["ab", (None, None)], ids=["uuid", "names"])
def test_a_file_opens_as_its_own_image(three, lazily, uuids):
    first, second = three(uuids=uuids)
    assert _read(first) == (11, 10, [])
    assert _read(second) == (13, 30, [])
    for number in range(3):  # one is chosen of the set, whichever file is named
        assert _read(first, series=number)[:2] == (11 + number, 10 * (number + 1))
    info = registry.describe(second)
    assert info.pixel_size_nm == pytest.approx((30, 30))
    assert (info.series, info.metadata["series_read"]) == (3, 2)


def test_a_file_that_was_renamed_is_found_by_its_uuid(three):
    _, path = three(names=("a", "renamed"))
    assert _read(path) == (13, 30, [])


def test_a_file_that_its_set_does_not_name_is_read_alone(three, lazily):
    _, path = three(names=("a", "renamed"), uuids=(None, None))
    value, size, heard = _read(path)
    assert (value, size) == (13, None)
    assert "lists only other files" in heard[0]
    assert registry.describe(path).series == 1


@pytest.mark.parametrize("kind", [None, "a.companion.ome"])
def test_all_files_of_a_set_are_one_input(tmp_path, kind):
    text = _document("a", _image(1, ("a", 0), ("b", 0), channels=2))
    if kind is not None:
        (tmp_path / kind).write_text(text)
        text = _document("a", COMPANION.format(kind))
    first, second = (tmp_path / f"{name}.ome.tif" for name in "ab")
    _save(first, [11], text)
    _save(second, [12], text)
    made, step = tmp_path / "made.tif", Step("s", {"i": first}, {}, (tmp_path / "o",))
    semsr.convert(first, made, channel=1)

    def was_run():
        def write():
            step.outputs[0].write_text("made")
            yield from ()
            return Result()

        return run(run_step(step, write))[1] is not None

    assert (was_run(), was_run(), semsr.replay(made).differs) == (True, False, ())
    image = semsr.read(made)
    record = image.provenance.inputs[0]
    alone = record.model_copy(update={"digest": f"{digest_path(first)}#channel=1"})
    history = image.provenance.model_copy(update={"inputs": (alone,)})
    semsr.write(image.replace(provenance=history), tmp_path / "older.tif")
    assert semsr.replay(tmp_path / "older.tif").differs == ()
    _save(second, [13], text)
    assert was_run()
    assert [one.what for one in semsr.replay(made).differs] == ["pixels", "input"]


def test_a_channel_in_each_file(tmp_path):
    content = _image(1, ("a", 0), ("b", 0), channels=2)
    paths = [tmp_path / f"{name}.ome.tif" for name in "ab"]
    for path, uuid, value in zip(paths, "ab", (11, 12), strict=True):
        _save(path, [value], _document(uuid, content))
    with refused(ReadError, "several-images", match="2 channels"):
        registry.read(paths[1])
    for channel in (0, 1):
        assert _read(paths[1], channel=channel) == (11 + channel, 10, [])
    paths[0].unlink()
    value, size, heard = _read(paths[1])
    assert (value, size) == (12, 10)
    assert ["are missing" in one for one in heard] == [True]
    assert registry.describe(paths[1]).channels == 1


@pytest.mark.parametrize("kind", ["text", "tiff"])
def test_ome_xml_of_a_companion_is_that_of_its_files(tmp_path, lazily, kind):
    content = _image(1, ("a", 0)) + _image(2, ("b", 0))
    companion = tmp_path / ("set.companion.ome" if kind == "text" else "a.ome.tif")
    text = _document("a" if kind == "tiff" else "all", content)
    if kind == "text":
        companion.write_text(f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    else:
        _save(companion, [11], text)
    path = tmp_path / "b.ome.tif"
    _save(path, [12], _document("b", COMPANION.format(companion.name)))
    assert _read(path) == (12, 20, [])
    path = path.rename(tmp_path / "renamed.ome.tif")
    assert _read(path) == (12, 20, [])
    companion.unlink()
    value, size, heard = _read(path)
    assert (value, size) == (12, None)
    assert [companion.name in one for one in heard] == [True]


def test_ome_xml_alone_is_no_image(tmp_path):
    path = tmp_path / "set.companion.ome"
    path.write_text('<?xml version="1.0"?>' + _document("all", _image(1, ("b", 0))))
    with refused(ReadError, "no-image", match="other files"):
        registry.read(path)


@pytest.mark.parametrize("name", ["../set.companion.ome", "none.ome"])
def test_no_companion_outside_the_folder_is_read(tmp_path, name):
    (tmp_path / "set.companion.ome").write_text(_document("all", _image(1, ("b", 0))))
    path = tmp_path / "set" / "b.ome.tif"
    path.parent.mkdir()
    _save(path, [12], _document("b", COMPANION.format(name)))
    value, size, heard = _read(path)
    assert (value, size) == (12, None)
    assert ["not a readable file" in one for one in heard] == [True]


@pytest.mark.parametrize("named", [False, True])
def test_planes_of_a_stopped_acquisition_are_read_and_the_others_counted(
    tmp_path, named
):
    path = tmp_path / "a.ome.tif"
    places = [("a", page) for page in (0, 1, 2, 3, 4, 5)]
    content = _image(1, *places, channels=6).replace(
        'SizeC="6" SizeT="1"', "SizeC='2' SizeT='3'"
    )
    for channel in range(6):
        stated = f'FirstC="{channel % 2}" FirstT="{channel // 2}"'
        content = content.replace(f'FirstC="{channel}" P', f"{stated} P")
    if not named:
        content = re.sub("<UUID.*?</UUID>", "", content)
    _save(path, [11, 12, 13], _document("a", content))
    info = registry.describe(path)
    assert info.axes == {"t": 2, "c": 2}
    assert ["3 of 6 planes" in one for one in info.metadata["warnings"]] == [True]
    for time, channel, value in ((0, 0, 11), (0, 1, 12), (1, 0, 13)):
        assert _read(path, time=time, channel=channel)[:2] == (value, 10)
    for time in (1, 2):
        with refused(ReadError, "plane-missing"):
            registry.read(path, time=time, channel=1)
