"""A file is parsed once in a run, however often its pixels are needed."""

from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import run
from napari_semsr.io import open_frames, png
from napari_semsr.io.tiff import read as tiff
from tests.refusals import refused

SIDE, STEP = 160, 140


@pytest.fixture
def parsed(monkeypatch):
    """Count how often each file is parsed."""
    found = Counter()
    for module in (png, tiff):

        def raw_image(path, *how, usual=module.raw_image, **more):
            found[path.name] += 1
            return usual(path, *how, **more)

        monkeypatch.setattr(module, "raw_image", raw_image)
    return found


def frames_in(folder, rng, ending):
    folder.mkdir()
    grain = ndimage.gaussian_filter(rng.normal(size=(SIDE + STEP, SIDE + STEP)), 1.5)
    sample = (128 + 40 * grain / grain.std()).clip(0, 255).astype(np.uint8)
    for number in range(4):
        y, x = (STEP * place for place in divmod(number, 2))
        frame = sample[y : y + SIDE, x : x + SIDE]
        if ending == "png":
            Image.fromarray(frame).save(folder / f"f{number}.png")
        else:
            tifffile.imwrite(folder / f"f{number}.tif", frame)
    return sample


def test_a_frame_that_changed_is_read_again_and_one_that_was_written_into(
    tmp_path, rng
):
    frames_in(tmp_path / "scan", rng, "tif")
    scan = run(open_frames(tmp_path / "scan", grid=(2, 2), overlap=0.125))
    first = scan.read(0)
    first[:] = 0
    assert scan.read(0).any()
    tifffile.imwrite(tmp_path / "scan" / "f0.tif", np.full((SIDE, SIDE), 7, np.uint8))
    assert (scan.read(0) == 7).all()
    (tmp_path / "scan" / "f0.tif").unlink()
    with refused(semsr.core.ReadError, "file-missing"):
        scan.read(0)
