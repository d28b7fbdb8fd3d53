"""Laws of the guess where a data bar begins."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.io.read_image import detect_databar


def _with_bar(image, rows, ground, letter):
    """Put a bar with letters below an image."""
    bar = np.full((rows, image.shape[1]), ground, image.dtype)
    bar[rows // 3 : rows // 3 + 8, 20:200:6] = letter
    return np.vstack([image, bar])


@pytest.fixture
def specimen(rng):
    rough = rng.normal(120, 30, (300, 320))
    return np.clip(rough, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("ground", "letter"), [(0, 255), (255, 0), (40, 240)])
@pytest.mark.parametrize("rows", [24, 60])
def test_suggest_databar_finds_the_first_row(specimen, rows, ground, letter):
    found = detect_databar(_with_bar(specimen, rows, ground, letter))
    assert abs(found - rows) <= 1


def test_suggest_databar_finds_none_in_a_specimen(specimen):
    assert detect_databar(specimen) == 0


def test_suggest_databar_takes_a_dark_lower_part_for_specimen(specimen):
    image = specimen.copy()
    image[250:] = 0
    assert detect_databar(image) == 0


def test_suggest_databar_takes_a_slanted_edge_for_specimen(specimen):
    rows, columns = np.indices(specimen.shape)
    image = np.where(rows > 250 + columns / 20, 0, specimen).astype(np.uint8)
    image[290:294, 20:200:6] = 255
    assert detect_databar(image) == 0


@pytest.mark.broad
def test_suggest_databar_reads_the_lowest_rows_alone():
    read = []

    def load(block, block_info=None):
        rows, columns = block_info[None]["chunk-location"]
        read.append(rows)
        noise = np.random.default_rng(rows * 40 + columns).normal(120, 30, block.shape)
        if rows == 39:
            noise[-400:] = 0
            noise[-300:-200, 20:1000:60] = 255
        return noise.clip(0, 255).astype(np.uint8)

    field = da.zeros((40_000, 40_000), np.uint8, chunks=1000).map_blocks(
        load, dtype=np.uint8
    )
    read.clear()
    assert detect_databar(field) == 400
    assert set(read) <= {38, 39}


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1)),
        np.zeros((200, 200)),
        np.full((200, 200), np.nan),
        np.full((200, 200), np.inf),
    ],
    ids=["pixel", "constant", "nan", "inf"],
)
def test_suggest_databar_is_calm_about_empty_images(image):
    with np.errstate(all="ignore"):
        assert detect_databar(image) == 0
