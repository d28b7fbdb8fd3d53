"""What a few defective pixels change of an enhanced image."""

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_array, enhance_lazy
from napari_semsr.models import load_model

OPTIONS = EnhanceOptions(precision="fp32", device="cpu")
FAR_PX = 40


def _scan(rng):
    smooth = ndimage.gaussian_filter(rng.normal(size=(224, 224)), 3)
    field = 2000 + 400 * smooth / smooth.std() + rng.normal(0, 120, smooth.shape)
    return np.clip(field, 0, 4095).astype(np.uint16)


@pytest.mark.parametrize("level", [0, 65535], ids=["dead", "hot"])
@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("sem-restore", "spots"),
        ("sem-restore", "column"),
        ("sem-2x", "spots"),
        ("sem-2x", "column"),
        ("ssum-sem", "spots"),
    ],
)
def test_defects_change_little_far_away(model, place, level, rng):
    clean, loaded = _scan(rng), load_model(model)
    mask = np.zeros(clean.shape, bool)
    if place == "spots":
        mask[[9, 40, 41, 112, 200], [9, 60, 60, 112, 20]] = True
    else:
        mask[30:, 60] = True
    odd = np.where(mask, level, clean).astype(np.uint16)
    before, after = (
        run(enhance_array(Micrograph(one, (20.0, 20.0), "odd"), loaded, OPTIONS))
        for one in (clean, odd)
    )
    (note,) = [n for n in after.metadata["enhance"]["notes"] if "of odd" in n]
    assert f"{mask.sum()} pixels of odd differ sharply" in note
    far = ~ndimage.binary_dilation(mask, iterations=FAR_PX)
    far = np.kron(far, np.ones((loaded.card.scale,) * 2, bool))
    change = np.abs(before.data - after.data)[far].max()
    assert change < np.ptp(before.data) / 60


def test_a_lazy_field_is_mended_too(make_loaded, rng):
    odd = _scan(rng)
    odd[60, 70] = 65535
    made = [
        enhance_lazy(Micrograph(field, name="odd"), make_loaded("plain"), OPTIONS)
        for field in (odd, da.from_array(odd, chunks=64))
    ]
    found = run(enhance_array(Micrograph(odd), make_loaded("plain"), OPTIONS)).data
    for one in made:
        np.testing.assert_allclose(one.compute(), found, atol=0.02)
    odd[60, 70] = np.median(odd[58:63, 68:73])
    mild = run(enhance_array(Micrograph(odd), make_loaded("plain"), OPTIONS)).data
    assert np.abs(found - mild).max() < np.ptp(mild) / 5
