"""Whether a check tells models that show what is there from those that do not."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import napari_semsr
from napari_semsr.cli.command import main
from napari_semsr.core.errors import OptionError, ReadError, WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.io.formats import write
from napari_semsr.jobs.check.job import (
    MODELS_CHECK,
    CheckOptions,
    ClearImages,
    DegradedInput,
    GroundTruthSource,
    SimulatedGoldSource,
    evaluate_source,
)
from napari_semsr.jobs.check_record import DiscRecord
from napari_semsr.models import cards
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import LoadedModel, load_model
from napari_semsr.simulation import draw_phantom
from tests.refusals import refused
from tests.tiny_models import write_tiny_model

FEW = CheckOptions(discs=8, size_px=128)


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
    options = CheckOptions(discs=12)
    (found,) = run(evaluate_source(Clear(), loaded(network), options))
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


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_model(tmp_path)


@pytest.mark.broad
def test_check_repeats_by_seed_and_leaves_the_file_alone(tiny):
    before = tiny.read_bytes()
    first, again, other = (
        run(MODELS_CHECK.job(tiny, options=FEW.replace(seed=seed)))
        for seed in (3, 3, 4)
    )
    assert tiny.read_bytes() == before
    assert first.digest == cards.compute_model_digest(tiny)
    card = first.to_card()
    assert set(card["conditions"]) == {"blur", "fog", "hybrid"}
    assert card == again.to_card()
    assert card["conditions"] != other.to_card()["conditions"]


def test_write_changes_the_card_and_no_weight(tiny, scene):
    before = load_model(tiny)
    found = run(MODELS_CHECK.job(tiny, options=FEW.replace(write=True)))
    again = run(
        MODELS_CHECK.job(tiny, images=[scene.truth], options=FEW.replace(write=True))
    )
    after = load_model(tiny)
    weights = before.module.state_dict(), after.module.state_dict()
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert after.digest == again.digest != found.digest != before.digest
    assert DiscRecord.from_card({}) == {}
    records = DiscRecord.from_card(after.card.model_dump())
    assert list(records) == ["given", "drawn"]
    assert "blur" in records["given"].summary()
    checks = after.card.checks["discs"]
    assert checks == {"drawn": found.to_card(), "given": again.to_card()}
    assert after.card.model_copy(update={"checks": {}}) == before.card


def test_held_out_images_are_those_of_the_card(tmp_path):
    image = np.rint(255.0 * draw_phantom("pits", (160, 160), seed=1))
    image[-8:] = 1e9  # a data bar
    write(Micrograph(image.astype(np.float32)), tmp_path / "a.tif")
    recipe = {"recipe": {"data": {"held_out": [{"file": "a.tif", "crop_bottom": 8}]}}}
    path = write_tiny_model(tmp_path, name="named", training=recipe)
    found = run(MODELS_CHECK.job(path, held_out=tmp_path, options=FEW))
    assert found.images == "held_out"
    assert found.conditions[0].truths == 1


def test_faults_are_said_in_a_sentence(tiny, scene, tmp_path):
    def check(*images, **given):
        options = FEW.replace(**given.pop("options", {}))
        return run(MODELS_CHECK.job(tiny, images=images, options=options, **given))

    for image, given, error, code, value in (
        (
            scene.truth,
            {"options": {"task": "superlens"}},
            OptionError,
            "options-contradict",
            "superlens",
        ),
        (
            scene.truth,
            {"held_out": tmp_path},
            OptionError,
            "options-contradict",
            None,
        ),
        (None, {"held_out": tmp_path}, OptionError, "missing-value", "tiny"),
        (
            None,
            {"options": {"task": "gold"}},
            OptionError,
            "model-unsuitable",
            "2, .*1",
        ),
        (np.ones((40, 40)), {}, ReadError, "image-too-small", "40 x 40 px"),
        (np.diag(np.full(128, np.nan)), {}, ReadError, "pixels-missing", None),
        (np.ones((128, 128)), {}, ReadError, "no-structure", None),
    ):
        drawn = Micrograph(image) if isinstance(image, np.ndarray) else image
        with refused(error, code, match=value):
            check(*(() if image is None else (drawn,)), **given)


@pytest.mark.broad
def test_a_card_that_cannot_be_written_stays(tiny, monkeypatch):
    before = tiny.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cards.shutil, "copyfileobj", full)
    with refused(WriteError, "not-writable"):
        run(MODELS_CHECK.job(tiny, options=FEW.replace(write=True)))
    assert tiny.read_bytes() == before
    assert [path.name for path in tiny.parent.iterdir()] == [tiny.name]


def test_check_stops_when_it_is_told_to(tiny):
    steps = []

    def report(step):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(MODELS_CHECK.job(tiny, options=FEW.replace(write=True)), report)
    assert not load_model(tiny).card.checks


@pytest.mark.broad
def test_tables_hold_every_radius(tiny):
    found = napari_semsr.check_model(tiny, discs=8, size_px=128)
    record = DiscRecord(found.to_card())
    rows = list(record.rows())
    assert ("hybrid", "(3 px)") in [row[:2] for row in rows]
    assert ("blur", "3 px") in [row[:2] for row in rows]
    assert [line.split(":")[0] for line in record.lines()] == ["blur", "fog", "hybrid"]


@pytest.mark.broad
@pytest.mark.parametrize(
    "discs", [3, [], {"drawn": 1}, {"drawn": {"conditions": {"blur": {}}}}]
)
def test_a_card_that_tells_nonsense_tells_nothing(discs, tmp_path, capsys):
    card = {"checks": {"discs": discs}}
    assert DiscRecord.from_card(card) == {}
    path = write_tiny_model(tmp_path, **card)
    assert main(["models", "info", str(path)]) == 0
    assert "discs" not in capsys.readouterr().out


def test_command_checks_writes_and_tells(tiny, capsys):
    words = ["models", "check", str(tiny), "--discs", "8", "--size-px", "128"]
    assert main([*words, "--write", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["written"]
    assert record["digest"] == cards.compute_model_digest(tiny)
    assert record["conditions"]["blur"]["radii"][0]["inserted"]["discs"] > 0
    assert main(["models", "info", str(tiny)]) == 0
    assert "discs, drawn" in capsys.readouterr().out
    assert main(words) == 0
    assert "resolved" in capsys.readouterr().out


def test_flags_of_check_are_refused_elsewhere(capsys):
    assert main(["models", "list", "--write"]) == 2
    assert "--write is an option of `models check`" in capsys.readouterr().err
