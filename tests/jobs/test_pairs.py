"""The job: sets, provenance, contact sheet; two images or two folders."""

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr
from napari_semsr.core import Affine, Grid, WarpedImage
from napari_semsr.core.errors import IncompleteError, SemsrError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.io import ImageIdentity, StoredTransform, write_transform
from napari_semsr.pairing import SPLITS, PairOptions, open_pairs
from tests.refusals import refused


@pytest.fixture
def cut(tmp_path):
    """Cut pairs of two images or folders; what is too plain is taken as well."""

    def pairs(low, high, name="pairs.zarr", **options):
        options = {"min_contrast": 0.0, **options}
        made = napari_semsr.pairs(low, high, tmp_path / name, **options)
        return made, open_pairs(tmp_path / name)

    return pairs


@pytest.fixture
def made(scene, cut):
    return cut(scene.first, scene.truth, patch=24)


def test_patches_are_cut_where_the_store_says(scene, made):
    made, store = made
    assert store.counts == {n: getattr(made, n) for n in SPLITS}
    assert sum(store.counts.values()) + sum(made.rejected.values()) == made.candidates
    assert made.candidates == 4 * 5
    for name in SPLITS:
        low, high = store.get_arrays(name)
        for index, (_, y, x) in enumerate(store.group[f"{name}/low_places"][:]):
            window = np.s_[y : y + 24, x : x + 24]
            np.testing.assert_array_equal(low[index], scene.first.data[window])
            np.testing.assert_array_equal(high[index], scene.truth.data[window])
    assert store.record["pixel_size_nm"] == 10
    assert napari_semsr.read(made.sheet).array().std() > 10


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("low_nm", "asked", "scale"),
    [(20.0, {}, 2), (20.0, {"scale": 1}, 1), (13.0, {}, 1), (None, {}, 2)],
    ids=["twice", "asked", "odd", "unknown"],
)
def test_scale_is_what_the_pixel_sizes_state(scene, cut, low_nm, asked, scale):
    step = 2 if low_nm in (20, None) else 1
    small = scene.first.data[::step, ::step]
    low = scene.first.replace(data=small, pixel_size_nm=low_nm)
    high = scene.truth if low_nm else scene.truth.replace(pixel_size_nm=None)
    made, store = cut(low, high, patch=16, min_correlation=0.0, **asked)
    assert (made.scale, store.record["scale"]) == (scale, scale)
    assert store.get_arrays("train")[1].shape[-1] == 16 * scale


def test_folders_give_unpaired_sets_of_equal_number(scene, cut, tmp_path):
    for side, images in (("a", (scene.first, scene.second)), ("b", (scene.truth,))):
        (tmp_path / side).mkdir()
        for image in images:
            napari_semsr.write(image, tmp_path / side / f"{image.name}.tif")
    made, store = cut(tmp_path / "a", tmp_path / "b", patch=16)
    assert made.pairing == "unpaired"
    assert not store.is_paired
    for name in SPLITS:
        low, high = store.get_arrays(name)
        assert low.shape[0] == high.shape[0] == getattr(made, name)
    assert len(store.record["sources"]["low"]) == 2


@pytest.mark.broad
def test_folders_matched_by_name_are_pairs(scene, tmp_path):
    for side, image in (("a", scene.first), ("b", scene.truth)):
        (tmp_path / side).mkdir()
        for name in ("FeS_1.5kV_00", "FeS_1.5kV_01"):
            napari_semsr.write(image, tmp_path / side / f"{name}.tif")
    line = (tmp_path / "a", tmp_path / "b", tmp_path / "p.zarr")
    options = {"patch": 24, "min_contrast": 0.0, "match": "name", "overwrite": True}
    made = napari_semsr.pairs(*line, **options)
    assert (made.pairing, made.candidates) == ("paired", 40)
    (tmp_path / "b" / "FeS_1.5kV_01.tif").unlink()
    with refused(SemsrError, "second-image-missing", match=r"FeS_1.5kV_01 .* HIGH"):
        napari_semsr.pairs(*line, **options)
    made = napari_semsr.pairs(*line, leave_out="FeS_1.5kV_01", **options)
    assert made.candidates == 20
    with refused(SemsrError, "unknown-value", match="tow"):
        napari_semsr.pairs(*line, leave_out="tow", **options)


def _texture(seed, shape):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    field += 2 * ndimage.gaussian_filter(rng.normal(size=shape), 6)
    return 128 + 40 * field / field.std()


_PLACE, _OTHERS = _texture(3, (230, 270)), [_texture(n, (200, 240)) for n in (5, 6)]
_VIEWS = {
    "as-it-is": lambda seen: seen[:200, :240],
    "gain": lambda seen: 0.6 * seen[:200, :240] + 20,
    "inverted": lambda seen: 255 - seen[:200, :240],
    "shading": lambda seen: seen[:200, :240] * np.linspace(0.8, 1.2, 240),
    "shifted": lambda seen: seen[17:217, 21:261],
    "turned": lambda seen: np.rot90(seen[:200, :240]),
    "mirrored": lambda seen: seen[:200, 239::-1],
}


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("name", "paired"), [*((name, True) for name in _VIEWS), ("turned", False)]
)
def test_no_two_sets_show_one_place(cut, name, paired):
    """The second image shows what the first does, in another way."""
    highs = [_PLACE[:200, :240], _VIEWS[name](_PLACE), *_OTHERS]
    rng = np.random.default_rng(8)
    lows = [high + 0.1 * high.std() * rng.normal(size=high.shape) for high in highs]
    sides = [
        [Micrograph(one, 10.0, f"{n}.tif") for n, one in enumerate(side)]
        for side in (lows, highs)
    ]
    match = "name" if paired else "none"
    made, store = cut(*sides, patch=32, match=match, validation=0.2, test=0.2)
    assert ["0.tif", "1.tif"] in made.same_place
    fits = name in list(_VIEWS)[:4]  # such images may share theirs place by place
    for side in ("low", "high"):
        homes: dict[tuple, set[str]] = {}
        for split in SPLITS:
            for source, y, x in store.group[f"{split}/{side}_places"][:].tolist():
                here = (0, y, x) if fits else (0,)
                here = here if source < 2 else (source, y, x)
                homes.setdefault(here, set()).add(split)
        assert all(len(names) == 1 for names in homes.values())


def test_one_low_image_with_two_references_is_one_place(cut):
    lows = [Micrograph(_PLACE, 10.0, "a.tif"), Micrograph(_PLACE, 10.0, "b.tif")]
    highs = [one.replace(data=one.data**2 / 200) for one in lows]
    made, _ = cut(lows, highs, patch=32, match="name")
    assert made.same_place == [["a.tif", "b.tif"]]
    assert made.validation


@pytest.fixture
def pictures(tmp_path):
    """A place scanned twice, the finer scan off by some px, darker; a blank scan."""
    fine = ndimage.gaussian_filter(np.random.default_rng(4).random((330, 330)), 3)
    fine = (fine - fine.min()) / np.ptp(fine)
    low = fine[20:276, 20:276].reshape(128, 2, 128, 2).mean((1, 3))
    how = {"offset": (25.3, 16.6), "output_shape": (256, 256)}
    high = 0.8 * ndimage.affine_transform(fine, np.diag((1.004, 0.997)), **how) + 0.1
    images = {"1_low": low, "1_high": high, "2_low": low, "2_high": 0 * high}
    for name, image in images.items():
        made = Micrograph(image.astype(np.float32), name=name)
        napari_semsr.write(made, tmp_path / f"{name}.tif")
    return tmp_path


@pytest.mark.broad
def test_scans_are_aligned_in_place_and_grey_levels(pictures, cut):
    scans = pictures / "*_low.tif", pictures / "*_high.tif"
    how = {"min_correlation": 0.9, "min_contrast": PairOptions().min_contrast}
    made, store = cut(*scans, align=True, patch=24, **how)
    good, foreign = made.images
    assert sum(good[name] for name in SPLITS) == made.candidates > 0
    assert foreign["refused"]
    low, high = (np.asarray(part[:]) for part in store.get_arrays("train"))
    assert high.shape[1:] == (48, 48)
    binned = high.reshape(-1, 24, 2, 24, 2).mean((2, 4))
    assert np.abs(binned - low).mean() < 0.05 * low.std()
    (y, x) = np.asarray(store.record["sources"]["low"][0]["origin"]).astype(int)
    _, row, column = store.group["train/low_places"][0]
    whole = napari_semsr.read(pictures / "1_low.tif").array()
    window = whole[y + row : y + row + 24, x + column : x + column + 24]
    np.testing.assert_array_equal(window, low[0])  # LOW is what a network will see


def image(data, pixel=None) -> Micrograph:
    return Micrograph(np.asarray(data), parse_pixel_size(pixel), "image")


GRAIN = image(np.random.default_rng(0).random((64, 64)))
FOREIGN, SHORT, NEAR = (
    image(data) for data in (GRAIN.data[::-1], GRAIN.data[:50], GRAIN.data**2)
)
RESCAN = {"second_scan": True, "align": True, "min_correlation": 0}

WRONG = {
    "empty": (image(np.zeros((64, 64))), GRAIN, {}, "nothing-to-train"),
    "nan": (GRAIN, image(GRAIN.data * np.nan), {}, "no-finite-values"),
    "foreign": (GRAIN, FOREIGN, {}, "nothing-to-train"),
    "shapes": (GRAIN, SHORT, {}, "pixel-size-missing"),
    "fields": (GRAIN, SHORT, {"align": True}, "sizes-differ"),
    "one-image": (GRAIN, NEAR, {"whole_images": True}, "too-few-images"),
    "itself": (GRAIN, GRAIN, {}, "same-image"),
    "rescan": (GRAIN, GRAIN, RESCAN, "same-image"),
    "one-patch": (GRAIN, NEAR, {"patch": 64}, "too-few-patches"),
    "too-small": (GRAIN, NEAR, {"patch": 99}, "image-too-small"),
    "shares": (GRAIN, GRAIN, {"test": 0.9, "validation": 0.2}, "options-contradict"),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_refused(tmp_path, wrong):
    low, high, options, code = WRONG[wrong]
    with refused(SemsrError, code):
        napari_semsr.pairs(low, high, tmp_path / "p.zarr", **{"patch": 16, **options})
    assert not list(tmp_path.iterdir())


def test_one_folder_and_one_image_are_refused(scene, tmp_path):
    (tmp_path / "a").mkdir()
    napari_semsr.write(scene.first, tmp_path / "a" / "x.tif")
    with refused(SemsrError, "wrong-type"):
        napari_semsr.pairs(tmp_path / "a", scene.truth, tmp_path / "p.zarr")


def test_what_is_no_store_of_pairs_is_refused(scene, made, tmp_path):
    import zarr

    napari_semsr.write(scene.first, tmp_path / "image.ome.zarr")
    with refused(SemsrError, "not-a-pair-store"):
        open_pairs(tmp_path / "image.ome.zarr")
    group = zarr.open_group(tmp_path / "pairs.zarr", mode="r+")
    group.attrs["semsr-pairs"] = {**group.attrs["semsr-pairs"], "complete": False}
    with refused(IncompleteError, "incomplete"):
        open_pairs(tmp_path / "pairs.zarr")


@pytest.fixture
def turned(scene) -> tuple[Micrograph, StoredTransform]:
    """The truth as another instrument would see it, and the map back."""
    back = Affine.create_similarity(8.0, shift=(40.0, -25.0))
    grid = Grid((96, 128), (10.0, 10.0), (-5.0, -5.0))
    seen = WarpedImage(scene.truth, grid, back.inverse()).read()
    low = Micrograph(seen, parse_pixel_size(10.0), "optical")
    centre, far = (400.0, 500.0), (0.0, 0.0)
    residuals = {
        "places_nm": [centre, far],
        "off_nm": [[30.0, 0.0], [0.0, 0.0]],
        "reliable": [False, True],
        "side_nm": 200.0,
    }
    sides = ImageIdentity.from_image(low), ImageIdentity.from_image(scene.truth)
    return low, StoredTransform(back, *sides, {"residuals": residuals})


def test_stored_transform_brings_low_onto_high(scene, turned, cut, tmp_path):
    low, stored = turned
    transform = tmp_path / "map.json"
    write_transform(transform, stored)
    made, store = cut(low, scene.truth, patch=16, transform=transform)
    assert made.rejected["unreliable"] >= 1
    assert made.rejected["not-finite"] >= 1
    low_set, high_set = (a[:] for a in store.get_arrays("train"))
    assert np.corrcoef(low_set.ravel(), high_set.ravel())[0, 1] > 0.98
    places = store.group["train/high_places"][:, 1:] * 10.0 - 5
    source = store.record["sources"]["high"][0]["origin"]
    centres = places + source + 80
    assert np.abs(centres - (400, 500)).max(axis=1).min() > 100


def test_transform_at_another_pixel_resamples_low_once(scene, turned, cut):
    low, stored = turned
    options = {"transform": stored, "pixel_nm": 15.0, "scale": 1}
    made, store = cut(low, scene.truth, patch=16, **options)
    assert made.pixel_size_nm == 15
    low_set, high_set = (a[:] for a in store.get_arrays("train"))
    assert np.corrcoef(low_set.ravel(), high_set.ravel())[0, 1] > 0.97


def test_transform_of_other_images_is_refused(scene, turned, tmp_path):
    low, stored = turned
    small = low.replace(data=low.data[:50])
    with refused(SemsrError, "transform-of-other-image"):
        napari_semsr.pairs(small, scene.truth, tmp_path / "p.zarr", transform=stored)
    assert not (tmp_path / "p.zarr").exists()
