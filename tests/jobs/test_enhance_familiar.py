"""How much of an image is unlike the place that a model was trained on."""

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr import core
from napari_semsr.analysis import FAMILIARITY, BlockFeatures
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import read, write
from napari_semsr.jobs import ENHANCE
from tests.refusals import refused
from tests.tiny_models import write_tiny_model

TINY = EnhanceOptions(tile=128, precision="fp32", device="cpu")
SIDE = 300


def texture(pitch_px, seed):
    """Random boxes of a pitch, blurred, with noise, in grey levels."""
    rng = np.random.default_rng(seed)
    cells = rng.random((SIDE // pitch_px + 1,) * 2) > 0.5
    image = np.kron(cells, np.ones((pitch_px, pitch_px)))[:SIDE, :SIDE]
    image = ndimage.gaussian_filter(image, 2.0) + rng.normal(0, 0.01, image.shape)
    return (1000 + 500 * image).astype(np.float32)


def field(pitch_px, seed=1, pixel_nm=20.0):
    size = None if pixel_nm is None else core.parse_pixel_size(pixel_nm)
    return core.Micrograph(texture(pitch_px, seed), size, f"pitch {pitch_px}")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A tiny model with the record of a training place, as *adapt* writes it."""
    place = BlockFeatures.from_parts([(texture(8, 0) - 1000) / 500])
    card = {"input_scaling": "percentiles", "pixel_size_nm": (20.0, 20.0)}
    training = {FAMILIARITY: place.to_json()}
    return write_tiny_model(
        tmp_path_factory.mktemp("own"), name="own", training=training, **card
    )


def enhanced(image, folder, model, **how):
    heard = []
    with core.capture_warnings(heard.append):
        made = core.run(
            ENHANCE.job(image, folder / "a.ome.zarr", model=model, options=TINY, **how)
        )
    return made, [text for text in heard if "trained on" in text]


def test_an_image_of_the_sample_is_familiar(adapted, tmp_path):
    made, heard = enhanced(field(8), tmp_path, adapted)
    assert made.unfamiliar_percent <= 30
    assert not heard


def test_the_image_is_compared_on_the_pixels_of_the_model(adapted, tmp_path):
    """The sample at half the pixel size is familiar, a finer one at 10 nm is not."""
    fine = field(8)
    data = ndimage.zoom(fine.data, 2, order=3)
    same = core.Micrograph(data, core.parse_pixel_size(10.0), "same")
    made, _ = enhanced(same, tmp_path, adapted)
    assert made.unfamiliar_percent <= 30
    other = core.Micrograph(fine.data, core.parse_pixel_size(10.0), "finer")
    made, heard = enhanced(other, tmp_path, adapted, overwrite=True)
    assert made.unfamiliar_percent > 80
    assert len(heard) == 1


@pytest.mark.parametrize("pixel_nm", [20.0, None])
def test_the_map_lies_over_the_image(adapted, tmp_path, pixel_nm):
    image = field(8, pixel_nm=pixel_nm)
    image.data[:, 200:] = texture(14, 1)[:, 200:]
    path, target = tmp_path / "image.ome.tif", tmp_path / "map.ome.tif"
    write(image, path)
    made, _ = enhanced(path, tmp_path, adapted, unfamiliar_map=target)
    drawn = read(target)
    assert made.unfamiliar_map == str(target)
    assert drawn.shape == (3, 3)
    side = 96 * (pixel_nm or 1)
    assert drawn.scale == pytest.approx((side, side))
    first = side / 2 - (pixel_nm or 1) / 2  # of a pixel's centre to the next one's
    assert drawn.origin == pytest.approx((first, first))
    assert (drawn.array()[:, 2] > 1).all()
    assert made.unfamiliar_percent == pytest.approx(100 * (drawn.array() > 1).mean())
    assert drawn.provenance.part == "unfamiliar_map"
    assert semsr.replay(target).identical


def test_other_models_state_no_place(tmp_path):
    model = write_tiny_model(tmp_path)
    made, heard = enhanced(field(8), tmp_path, model)
    assert made.unfamiliar_percent is None
    assert not heard
    with refused(core.OptionError, "model-unsuitable"):
        enhanced(
            field(8), tmp_path, model, unfamiliar_map=tmp_path / "m.tif", overwrite=True
        )
    assert (tmp_path / "a.ome.zarr").exists()
