"""An image comes onto the grid of another, with its map, or not at all."""

import shutil
import warnings

import numpy as np
import pytest

from napari_semsr import core, enhance, read, register
from napari_semsr.io import ImageIdentity, StoredTransform, write, write_landmarks
from napari_semsr.jobs import REGISTER, RegisterOptions
from napari_semsr.registration import Landmarks, RegistrationRefused
from tests.refusals import refused, warned
from tests.two_views import draw_views

ALONE = RegisterOptions(landmarks_only=True)


@pytest.fixture(scope="module")
def views():
    return draw_views()


@pytest.fixture(scope="module")
def found(views, tmp_path_factory):
    """Both images as files, registered once."""
    folder = tmp_path_factory.mktemp("found")
    moving, fixed, _ = views
    write(moving, folder / "moving.tif")
    write(fixed, folder / "fixed.tif")
    both = folder / "moving.tif", folder / "fixed.tif"
    out = {"output": folder / "out.ome.zarr", "transform_out": folder / "map.json"}
    return folder, core.run(REGISTER.job(*both, **out))


@pytest.fixture
def folder(found, tmp_path):
    for name in ("moving.tif", "fixed.tif", "map.json"):
        shutil.copy(found[0] / name, tmp_path / name)
    return tmp_path


def _marks(truth: core.Affine):
    moving = np.array([(400.0, 500), (4000, 700), (900, 4100), (3900, 3700)])
    return Landmarks(moving, truth(moving))


def stored_of(transform, views, **quality):
    sides = (ImageIdentity.from_image(view) for view in views[:2])
    return StoredTransform(transform, *sides, quality)


def test_image_lies_on_the_grid_of_the_other(found, views):
    folder, made = found
    moving, fixed, truth = views
    image = read(folder / "out.ome.zarr")
    assert image.shape == made.shape == fixed.shape
    assert image.pixel_size_nm == fixed.pixel_size_nm
    assert image.origin == fixed.origin
    expected = core.WarpedImage(moving, core.Grid.from_image(fixed), truth).read()
    known = np.isfinite(expected) & np.isfinite(image.array())
    assert np.isnan(image.array()).any()
    assert np.corrcoef(image.array()[known], expected[known])[0, 1] > 0.98


def test_error_is_as_small_as_it_says(found, views):
    _, made = found
    truth = views[2]
    (a, b, y), (c, d, x) = made.transform["matrix"]
    places = np.random.default_rng(0).uniform(0, 5000, (100, 2))
    off = core.Affine(((a, b), (c, d)), (y, x))(places) - truth(places)
    assert np.sqrt((off**2).sum(axis=1).mean()) < 3 * made.error_nm < 24
    assert made.error_px == pytest.approx(made.error_nm / 24)
    assert made.mutual_information_after > made.mutual_information_before
    assert 0.8 < made.overlap <= 1
    assert made.unreliable == 0


def test_stored_map_gives_the_same_image_and_the_same_error(found, folder):
    before, made = found
    both = folder / "moving.tif", folder / "fixed.tif"
    how = {"output": folder / "out.ome.zarr", "transform": folder / "map.json"}
    again = core.run(REGISTER.job(*both, **how))
    one, two = (read(at / "out.ome.zarr") for at in (before, folder))
    np.testing.assert_array_equal(one.array(), two.array())
    assert again.searched == "stored"
    assert again.error_nm == pytest.approx(made.error_nm)
    assert again.residual_median_nm == pytest.approx(made.residual_median_nm)


def test_enhanced_image_takes_the_map_of_its_input(folder):
    finer = folder / "finer.ome.tif"
    enhance(folder / "moving.tif", finer, model="sem-2x", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = register(finer, folder / "fixed.tif", transform=folder / "map.json")
    assert seen.image.shape == read(folder / "fixed.tif").shape


def test_map_the_wrong_way_round_is_refused(folder):
    exchanged = folder / "fixed.tif", folder / "moving.tif"
    with refused(core.RegistrationError, "images-exchanged"):
        register(*exchanged, transform=folder / "map.json")


def test_landmarks_alone_give_their_map(views, tmp_path):
    moving, fixed, truth = views
    marks = _marks(truth)
    write_landmarks(tmp_path / "marks.csv", marks.moving, marks.fixed)
    how = {"landmarks": tmp_path / "marks.csv", "options": ALONE}
    made = core.run(REGISTER.job(moving, fixed, output=tmp_path / "out.tif", **how))
    assert (made.searched, made.score) == ("landmarks", None)
    recorded = {"moving": marks.moving.tolist(), "fixed": marks.fixed.tolist()}
    job = REGISTER.job(moving, fixed, landmarks=recorded, options=ALONE)
    assert core.run(job).searched == "landmarks"
    np.testing.assert_allclose(made.transform["degrees"], truth.degrees, atol=1e-4)
    assert made.residual_median_nm < 0.01
    assert made.error_nm < 0.01


def test_refusal_leaves_nothing_and_tells_its_reason(views, tmp_path):
    out = {"output": tmp_path / "out.tif", "transform_out": tmp_path / "map.json"}
    flat = core.Micrograph(np.full((90, 90), 7, np.float32), (20.0, 20.0), "blank")
    with refused(RegistrationRefused, "no-structure", match="blank") as refusal:
        core.run(REGISTER.job(flat, views[1], **out))
    assert list(tmp_path.iterdir()) == []
    assert refusal.value.to_json() == {"reason": "no-structure", "rivals": []}


@pytest.mark.broad
def test_small_overlap_and_a_large_error_are_told(views):
    moving, fixed, _ = views
    aside = core.Affine(((1.0, 0.0), (0.0, 1.0)), (4200.0, 0.0))
    with (
        warned("overlap-small", match=" 18 % .* 30 %"),
        warned("map-imprecise", match=r" 2\.1 px \(50 nm\)"),
    ):
        register(moving, fixed, transform=stored_of(aside, views, error_nm=50.0))


@pytest.mark.broad
def test_unconfirmed_patches_are_told_also_of_a_stored_map(views):
    moving, fixed, truth = views
    residuals = {
        "places_nm": [[0, 0], [9, 9]],
        "off_nm": [[0, 0], [90, 0]],
        "reliable": [True, False],
        "side_nm": 9,
    }
    stored = stored_of(truth, views, error_nm=1.0, residuals=residuals)
    with warned("map-unconfirmed", match=" 50 % .*`model=elastic`"):
        register(moving, fixed, transform=stored)
    del residuals["side_nm"]
    with refused(core.SemsrError, "file-damaged"):
        register(moving, fixed, transform=stored)


def test_map_of_another_image_is_refused_and_says_in_what(folder, views):
    _, fixed, _ = views
    write(fixed.replace(data=fixed.data[:200]), folder / "part.tif")
    with refused(
        core.RegistrationError, "transform-of-other-image", match="moving.*part"
    ):
        register(
            folder / "part.tif", folder / "fixed.tif", transform=folder / "map.json"
        )


def test_landmarks_outside_an_image_are_refused(views):
    moving, fixed, truth = views
    marks = _marks(truth)
    away = Landmarks(marks.moving + 4000, marks.fixed)
    with refused(core.RegistrationError, "landmark-outside"):
        register(moving, fixed, landmarks=away)


def test_what_cannot_be_done_is_refused_before_work(views, folder):
    moving, fixed, truth = views
    stored, out = folder / "map.json", folder / "out.tif"
    elastic = {"landmarks": _marks(truth), "model": "elastic", "landmarks_only": True}
    over_itself = {"transform": stored, "transform_out": stored}
    for how, error, code in (
        ({"landmarks_only": True}, core.OptionError, "missing-value"),
        (elastic, core.OptionError, "options-contradict"),
        (
            {"transform": stored, "model": "similarity"},
            core.OptionError,
            "options-contradict",
        ),
        ({"output": folder / "fixed.tif"}, core.SemsrError, "output-is-input"),
        ({"output": out, **over_itself}, core.SemsrError, "output-is-input"),
        ({"output": out, "transform_out": out}, core.SemsrError, "suffix-unknown"),
        ({"transform_out": folder / "new.json"}, core.OptionError, "missing-value"),
    ):
        with refused(error, code):
            register(folder / "moving.tif", folder / "fixed.tif", overwrite=True, **how)
    bare = (image.replace(pixel_size_nm=None) for image in (moving, fixed))
    with refused(
        core.RegistrationError, "pixel-size-missing", match="moving_pixel_size_nm"
    ):
        register(*bare)


# Images without a pixel size: the ratio is found.


def test_landmarks_find_the_pixel_size_too(views):
    moving, fixed, truth = views
    places = np.array([[1000.0, 1000], [1000, 4000], [4000, 1000], [4000, 4000]])
    bare = moving.replace(pixel_size_nm=None)
    marks = Landmarks(places / moving.scale[0], truth(places))
    with core.capture_warnings(lambda _: None):
        made = core.run(REGISTER.job(bare, fixed, options=ALONE, landmarks=marks))
    wanted = moving.scale[0] * truth.scale
    assert made.found_pixel_size_nm == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(
        made.registration.transform(places * truth.scale), truth(places), atol=1e-6
    )
