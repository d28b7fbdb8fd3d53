"""Every verb takes or refuses, in a sentence, images at the ends of what is stored."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import napari_semsr as semsr
from tests.hostile.commands import put_back, say
from tests.hostile.extremes import IMAGES, VERBS, lines, write_images

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.broad
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_takes_or_refuses_every_image(verb, place):
    write_images(place)
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for number, image in enumerate(IMAGES):
        words = lines(verb, image)  # in turns the first, the second, or both
        say(verb, *words[number % len(words)], "--json")
        put_back(place, whole)


@pytest.mark.parametrize("mark", [-3.4e38, 1e25])
def test_one_marked_pixel_moves_no_frame(mark, tmp_path):
    rng = np.random.default_rng(0)
    drawn = ndimage.gaussian_filter(rng.normal(size=(160, 220)), 2)
    drawn = 100 + 40 * drawn / drawn.std()
    marked = (drawn + rng.normal(0, 5, drawn.shape)).astype(np.float32)
    marked[80, 100] = mark
    places = []
    for name, missing in (("marked", mark), ("missing", np.nan)):
        drawn = np.where(marked == np.float32(mark), np.float32(missing), marked)
        (tmp_path / name).mkdir()
        for index, columns in enumerate((slice(0, 140), slice(80, 220))):
            tifffile.imwrite(tmp_path / name / f"f{index}.tif", drawn[:, columns])
        target = tmp_path / f"{name}.tif"
        made = semsr.stitch(tmp_path / name, target, grid=(1, 2), overlap=0.4)
        places.append(made.positions[1]["x_px"])
        assert np.nanmax(np.abs(semsr.read(target).array())) < 1e3
    assert places[0] == places[1] == pytest.approx(80, abs=0.1)
