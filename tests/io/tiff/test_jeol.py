"""The text file beside a JEOL image."""

import imagecodecs
import numpy as np
import pytest

from napari_semsr.io import formats as registry

_TEXT = (
    "$CM_FORMAT JEOL-SEM\r\n$CM_MAG 5000\r\n$CM_FULL_SIZE {frame}\r\n"
    "$$SM_MICRON_BAR {bar}\r\n$$SM_MICRON_MARKER {marker}\r\n"
)


@pytest.fixture
def jeol(tmp_path, grey):
    def write(text=None, *, frame="53 30", bar="20", marker="1um", suffix=".txt"):
        path = tmp_path / "a.bmp"
        path.write_bytes(imagecodecs.bmp_encode(grey))
        filled = _TEXT.format(frame=frame, bar=bar, marker=marker)
        path.with_suffix(suffix).write_bytes((text or filled).encode("latin-1"))
        return path

    return write


@pytest.mark.parametrize("suffix", [".txt", ".TXT"])
@pytest.mark.parametrize("marker", ["1um", "1 \u00b5m", "1000nm"])
def test_sidecar_gives_pixel_size_and_data_bar(jeol, grey, marker, suffix):
    path = jeol(marker=marker, suffix=suffix)
    info = registry.describe(path)
    assert info.vendor == "JEOL"
    assert info.pixel_size_nm == (50.0, 50.0)
    assert info.databar_rows == 7
    found = registry.read(path)
    assert np.array_equal(found.array(), grey[:30])
    assert found.metadata["jeol"]["$CM_MAG"] == "5000"


def test_sidecar_follows_a_resampled_image(jeol):
    info = registry.describe(jeol(frame="106 60"))
    assert info.pixel_size_nm == (100.0, 100.0)
    assert info.databar_rows == 7


@pytest.mark.parametrize(
    ("bar", "marker"),
    [("0", "1um"), ("nan", "1um"), ("-4", "1um"), ("20", "x"), ("x", "1um")],
)
def test_sidecar_with_a_bad_bar_leaves_the_size_unknown(jeol, bar, marker):
    found = registry.read(jeol(bar=bar, marker=marker))
    assert found.pixel_size_nm is None
    assert found.shape == (30, 53)
    assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize("frame", ["", "53", "53 99", "a b", "0 0", "53 -1"])
def test_sidecar_without_a_frame_crops_nothing(jeol, frame):
    assert registry.describe(jeol(frame=frame)).databar_rows == 0


@pytest.mark.parametrize("text", ["Shopping list\n- pizza\n", "$PRICE 5\n", "\0\xff"])
def test_other_text_files_are_left_alone(jeol, text):
    info = registry.describe(jeol(text))
    assert info.vendor is None
    assert info.pixel_size_nm is None
