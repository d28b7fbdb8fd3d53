"""Whether a check tells models that show what is there from those that do not."""

import numpy as np
import pytest
import torch
from check_model import (
    ClearImages,
    DegradedInput,
    GroundTruthSource,
    Settings,
    SimulatedGoldSource,
    check,
    choose_tasks,
    compute_blur_width_px,
    evaluate_source,
    merge_checks,
)
from torch import nn

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.formats import write
from napari_semsr.jobs import get_check_figures
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import LoadedModel, load_model
from napari_semsr.simulation import degrade, draw_phantom
from tests.refusals import refused
from tests.tiny_models import write_tiny_model

PLACE = {"name": "p", "architecture": "place", "stride": 2, "receptive_field": 114}


class Flat(nn.Module):
    """Shows nothing at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x + 0.5


class Twice(nn.Module):
    """Repeats each pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Clear(GroundTruthSource):
    """Truths that nothing degrades."""

    def __init__(self) -> None:
        self.widths_px = {"clear": 0.0}
        self._images = ClearImages.simulate(160, scale=1, seed=0)

    def create_scenes(self, index: int, counts: tuple[int, int]) -> list[DegradedInput]:
        trial = self._images.create_scenes(index, counts)[0].trial
        return [
            DegradedInput(
                "clear", Micrograph(trial.with_changes.astype(np.float32)), trial
            )
        ]


def loaded(module: nn.Module, **card: object) -> LoadedModel:
    made = {"name": "n", "architecture": "n", "receptive_field": 0, **card}
    return LoadedModel(module.eval(), ModelCard.model_validate(made), "sha256:0")


def shares(found) -> dict[str, float]:
    total = {
        change: [row for row in found.rows if row.change == change]
        for change in ("inserted", "erased")
    }
    return {
        change: sum(r.enhanced for r in rows) / sum(r.discs for r in rows)
        for change, rows in total.items()
    }


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("network", "inserted", "erased"), [(nn.Identity(), 1, 1), (Flat(), 0, 1)]
)
def test_a_truth_shows_all_and_a_flat_image_nothing(network, inserted, erased):
    (found,) = evaluate_source(Clear(), loaded(network), Settings(12))
    assert shares(found) == {"inserted": inserted, "erased": erased}
    for change in ("inserted", "erased"):
        assert sum(r.discs for r in found.rows if r.change == change) >= 12


SOURCES = {
    "gao": lambda: ClearImages.simulate(160, scale=1, seed=1),
    "binned": lambda: ClearImages.simulate(160, scale=2, seed=1),
    "gold": lambda: SimulatedGoldSource(80, scale=2, seed=1),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", SOURCES)
def test_sources_change_what_can_be_told(name):
    first, again = (SOURCES[name]().create_scenes(2, (6, 6)) for _ in range(2))
    assert [scene.condition for scene in first] == list(SOURCES[name]().widths_px)
    discs = 0
    for scene, same in zip(first, again, strict=True):
        trial = scene.trial
        assert np.array_equal(scene.field.array(), same.field.array())
        scale = trial.with_changes.shape[0] // scene.field.shape[0]
        assert scene.resample_input(scale).shape == trial.with_changes.shape
        right, none = (
            trial.find_shown_discs(trial.with_changes),
            trial.find_shown_discs(0 * trial.with_changes),
        )
        assert right["inserted"].all()
        assert right["erased"].all()
        assert not none["inserted"].any()
        assert none["erased"].all()
        discs += len(trial.places.inserted_discs) + len(trial.places.erased_discs)
    assert discs > 0


@pytest.mark.broad
@pytest.mark.parametrize("name", ["binned", "gold"])
def test_a_coarse_image_lies_on_its_truth(name):
    scene = SOURCES[name]().create_scenes(1, (6, 6))[0]
    image = scene.resample_input(2)
    inner = np.s_[16:-16, 16:-16]

    def likeness(shift: int) -> float:
        moved = np.roll(scene.trial.with_changes, shift, (0, 1))[inner]
        return float(np.corrcoef(image[inner].ravel(), moved.ravel())[0, 1])

    assert likeness(0) > max(likeness(-1), likeness(1))


def test_a_check_repeats_by_seed_and_keeps_what_a_card_has(tmp_path):
    model = load_model(write_tiny_model(tmp_path))
    first, again, other = (
        check(model, Settings(8, 128, seed=seed)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert set(first["discs"]["drawn"]["conditions"]) == {"blur", "fog", "hybrid"}
    known = {"discs": {"given": {"conditions": {}}}, "removals": {"fields": 1}}
    merged = merge_checks(known, first)
    assert merged["discs"] == {**known["discs"], **first["discs"]}
    assert merged["removals"] == known["removals"]
    assert len(get_check_figures({"checks": first})) == 3


def test_a_model_of_light_is_tested_with_removed_objects(tmp_path):
    recipe = {"recipe": {"data": {"sources": {"superlens": 1}}}}
    model = load_model(write_tiny_model(tmp_path, training=recipe))
    found = check(model, Settings(4, 128))
    assert list(found) == ["removals"]
    assert set(found["removals"]["rows"]) == {"model", "light", "linear filter"}
    assert choose_tasks(ModelCard(**PLACE)) == ["superlens"]


def test_held_out_images_are_those_of_the_card(tmp_path):
    image = np.rint(255.0 * draw_phantom("pits", (160, 160), seed=1))
    image[-8:] = 1e9  # a data bar
    write(Micrograph(image.astype(np.float32)), tmp_path / "a.tif")
    recipe = {"recipe": {"data": {"held_out": [{"file": "a.tif", "crop_bottom": 8}]}}}
    model = load_model(write_tiny_model(tmp_path, name="named", training=recipe))
    found = check(model, Settings(8, 128), held_out=tmp_path)
    assert found["discs"]["held_out"]["conditions"]["blur"]["truths"] == 1


def test_images_that_cannot_be_checked_are_refused(tmp_path):
    model = load_model(write_tiny_model(tmp_path))
    path = tmp_path / "a.tif"
    for values, code in (
        (np.ones((40, 40)), "image-too-small"),
        (np.ones((128, 128)), "no-structure"),
    ):
        write(Micrograph(values.astype(np.float32)), path, overwrite=True)
        with refused(ReadError, code):
            check(model, Settings(8, 128), images=[path])
    with refused(OptionError, "options-contradict"):
        check(model, Settings(8, 128), ["gold"], images=[path])
    with refused(OptionError, "missing-value"):
        check(model, Settings(8, 128), held_out=tmp_path)
    with refused(OptionError, "model-unsuitable"):
        check(model, Settings(8, 128), ["gold"])


def test_blur_width_is_that_of_the_gaussian_and_wider_with_motion_and_defocus():
    gaussian = 2 * np.sqrt(2 * np.log(2)) * degrade.BLUR_SIGMA_PX
    assert compute_blur_width_px("blur") == pytest.approx(gaussian, abs=0.15)
    assert compute_blur_width_px("fog") == compute_blur_width_px("blur")
    assert degrade.MOTION_LENGTH_PX < compute_blur_width_px("hybrid") < 13
