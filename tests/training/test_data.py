"""Training data depend on the seed and the index alone."""

from pathlib import Path

import numpy as np
from PIL import Image

from napari_semsr.core import Micrograph, OptionError, ReadError
from napari_semsr.io.formats import write as save
from napari_semsr.training.recipe import DataOptions, ImageEntry, Recipe
from napari_semsr.training.scenes import SceneDataset, blend_scenes, load_clear_image
from tests.refusals import refused, warned

DATA = DataOptions(scene_px=48, patch_px=32, patches_per_scene=2)


def recipe(**changes: object) -> Recipe:
    return Recipe(name="r", data=DATA.replace(phantoms=1.0, **changes))


def _images(folder: Path, **sides: int) -> dict[str, object]:
    """Options that name images of given sides."""
    rng = np.random.default_rng(0)
    for name, side in sides.items():
        grey = rng.integers(0, 255, (side, 60)).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{name}.png")
    train = tuple(ImageEntry(file=f"{name}.png") for name in sides)
    return {"root": str(folder), "train": train, "phantoms": 0.5}


def test_images_smaller_than_a_scene_are_left_out_by_name_or_refused(tmp_path):
    named = DATA.replace(**_images(tmp_path, large=50, small=20, least=27))
    values = r" 27 px .* 48 px; .*: small\.png \(20 x 60\)\.$"
    with warned("images-left-out", match=values):
        dataset = SceneDataset(Recipe(name="r", data=named))
    assert {min(image.shape) for image in dataset.images} == {50, 38, 27}
    assert {dataset[i].low.shape for i in range(9)} == {(1, 48, 48)}
    named = DATA.replace(**_images(tmp_path, a=20, b=26))
    with refused(OptionError, "image-too-small", match=r" 27 px .* a\.png .* b\.png"):
        SceneDataset(Recipe(name="r", data=named))


def test_data_bars_are_left_out_and_unusable_images_named(tmp_path):
    grey = np.zeros((60, 50), np.uint8)
    grey[:40] = np.random.default_rng(0).integers(100, 200, (40, 50))
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = load_clear_image(tmp_path, ImageEntry(file="a.png", crop_bottom=20))
    assert image.shape == (40, 50)
    assert (image.min(), image.max()) == (0, 1)
    save(Micrograph(np.full((20, 20), np.nan, np.float32)), tmp_path / "a.tif")
    with refused(ReadError, "pixels-missing", match=r"a\.tif"):
        load_clear_image(tmp_path, ImageEntry(file="a.tif"))
    with refused(OptionError, "out-of-range", match=r"20 rows.*got 20"):
        load_clear_image(tmp_path, ImageEntry(file="a.tif", crop_bottom=20))


def test_regions_keep_their_scenes_and_the_range() -> None:
    first, second = np.full((96, 80), 0.2), np.random.default_rng(0).random((96, 80))
    made = blend_scenes(first, second, np.random.default_rng(4))
    assert made.shape == first.shape
    assert 0 <= made.min() <= made.max() <= 1
    untouched = np.isclose(made, 0.2, atol=1e-3).mean()
    assert 0.05 < untouched < 0.95
