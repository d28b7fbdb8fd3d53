"""An image and what was made of it have no resolution together, in every verb."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import napari_semsr as semsr

pytestmark = pytest.mark.filterwarnings("ignore:.*no pixel size:UserWarning")


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    shapes = ndimage.gaussian_filter(rng.normal(size=(192, 192)), 4) > 0
    truth = 90 + 60 * ndimage.gaussian_filter(shapes.astype(float), 1.5)
    return (truth + rng.normal(0, 20, (2, *truth.shape))).astype(np.float32)


@pytest.fixture
def exposures(scene):
    return [semsr.Micrograph(image, (5, 5)) for image in scene]


def restored(image, **options):
    return semsr.restore(image, method="wiener", psf="8nm", **options)


def test_images_in_memory_know_what_they_were_made_of(exposures):
    first, second = exposures
    other = semsr.degrade(first, kind="blur")
    pairs = [
        (first, restored(first)),
        (restored(first), other),
        (restored(first), semsr.crop(first, box=(0, 0, 192, 192))),
        (first, restored(other)),
    ]
    for pair in pairs:
        for images in (pair, pair[::-1]):
            found = semsr.frc(*images)
            assert (found.resolution_nm, found.reason) == (None, "not-independent")
    assert semsr.frc(first, second).reason is None


def test_noise_drawn_twice_is_independent(exposures):
    clean = semsr.Micrograph(ndimage.gaussian_filter(exposures[0].data, 2), (5, 5))
    draws = [
        semsr.degrade(clean, kind="none", read_noise=20, seed=seed) for seed in (1, 2)
    ]
    assert semsr.frc(*draws).reason is None
    assert semsr.frc(*map(restored, draws)).reason != "not-independent"
    assert semsr.frc(draws[0], clean, reference=True).reason is None
    assert semsr.frc(draws[0], clean).reason == "not-independent"
    assert semsr.frc(draws[0], restored(draws[0])).reason == "not-independent"


def test_files_are_known_by_their_digests(exposures, tmp_path):
    raw, other, stored, copied = (tmp_path / f"{n}.ome.tif" for n in "abcd")
    for path, image in zip((raw, other), exposures, strict=True):
        tifffile.imwrite(path, image.data)
    size = {"pixel_size_nm": 5}
    restored(raw, output=stored, **size)
    semsr.convert(stored, copied)
    for path in (stored, copied):
        assert semsr.frc(raw, path, **size).reason == "not-independent"
    # made of the grey values, measured by files, and the other way round
    semsr.write(restored(semsr.read(raw, **size)), tmp_path / "e.ome.tif")
    found = semsr.frc(raw, tmp_path / "e.ome.tif", **size)
    assert found.reason == "not-independent"
    found = semsr.frc(semsr.read(raw, **size), semsr.read(stored))
    assert found.reason == "not-independent"
    assert semsr.frc(other, stored, **size).reason is None
