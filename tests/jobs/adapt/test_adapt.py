import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr import analysis, core, training
from napari_semsr.inference import EnhanceOptions, prepare_model_input
from napari_semsr.io import ImageIdentity, StoredTransform, read, write
from napari_semsr.jobs import ADAPT, AdaptationError, AdaptOptions
from napari_semsr.jobs.adapt import areas, process, train
from napari_semsr.jobs.adapt.process import fit_in_process, fit_with_files
from napari_semsr.models import load_model, read_card
from tests.children import LIMIT_S
from tests.refusals import refused, warned

FORMER_RUN = Path(__file__).parents[2] / "corpus" / "77bd7f5d" / "adapted"
SIDE = (128, 224)
PIXEL = core.parse_pixel_size(20.0)
SURE = {"error_nm": 1.0}  # expected error of the stored registration


def objects(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros(SIDE)
    for _ in range(SIDE[0] * SIDE[1] // 250):
        y, x = rng.integers(0, SIDE[0]), rng.integers(0, SIDE[1])
        image[y : y + rng.integers(4, 12), x : x + rng.integers(4, 12)] = 1
    return image


def light_of(image, seed=0):
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return (500 + 300 * ndimage.gaussian_filter(image, 2.2) + noise).astype(np.float32)


def sem_of(image, seed=1):
    noise = np.random.default_rng(seed).normal(0, 4, image.shape)
    return (40 + 150 * image + noise).astype(np.float32)


def micrograph(data, name):
    return core.Micrograph(data, PIXEL, name)


@pytest.fixture(scope="module")
def place():
    """Give a mosaic with dead pixels, more than the percentiles of its range skip."""
    image = objects(3)
    light = light_of(image)
    light[np.random.default_rng(2).random(SIDE) < 0.004] = 100
    return micrograph(light, "mosaic"), micrograph(sem_of(image), "sem")


def lying(mosaic, sem, quality=SURE):
    return StoredTransform(
        core.Affine(),
        ImageIdentity.from_image(mosaic),
        ImageIdentity.from_image(sem),
        quality,
    )


def fit_by_steps(images, options, *, seconds, threads, **how):
    return fit_with_files(
        images,
        options.replace(copies=0, batch=4, patch_px=32, learning_rate=3e-3),
        seconds=None,
        steps=round(seconds),
        threads=1,
        report_every_s=0.0,
        **how,
    )


@pytest.fixture(autouse=True, scope="module")
def fit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit_in_process", fit_by_steps)
        yield


def adapt(mosaic, sems, folder, *, steps=60, report=None, **how):
    if "transform" not in how:
        how["transform"] = lying(mosaic, sems[0])
    options = how.pop("options", AdaptOptions()).replace(minutes=(steps or 0.1) / 60)
    return core.run(ADAPT.job(mosaic, sems, folder, options=options, **how), report)


@pytest.fixture(scope="module")
def adapted(place, tmp_path_factory):
    mosaic, sem = place
    folder = tmp_path_factory.mktemp("adapt") / "run"
    steps = []
    other = micrograph(light_of(objects(5)), "other: 5/6")
    made = adapt(mosaic, [sem], folder, apply=[other], report=steps.append)
    return made, folder, steps


def test_a_place_gives_a_model_that_is_ahead_of_everything_simpler(adapted):
    made, folder, _ = adapted
    own = made.evaluated["adapted model"]
    for name in ("linear filter", "ssum-sem"):
        assert own.gain_db > made.evaluated[name].gain_db
    assert made.evaluated["input"].gain_db == 0
    assert (folder / made.model).is_file() or made.model.startswith(str(folder))


def test_no_single_part_decides_whether_a_model_is_kept(adapted):
    own = adapted[0].evaluated["adapted model"]

    def decide(*parts):
        errors = [areas.SquaredErrors(np.array(one, float)) for one in parts]
        model, before = (replace(own, errors=one) for one in errors)
        areas.require_gain({"input": before, "model": model}, "model")

    decide([1] * 15 + [101], [2] * 15 + [100])
    with refused(AdaptationError, "no-gain"):
        decide([0.4, 2] * 8, [1] * 16)  # +4 and -3 dB


@pytest.mark.broad
def test_what_a_training_lacks_is_warned_of(place, tmp_path, monkeypatch):
    def fit_without(*images, **how):
        fit = yield from fit_by_steps(*images, **how)
        return replace(fit, light_explained=0.2, explained={"share": 0.7})

    monkeypatch.setattr(train, "fit_in_process", fit_without)
    focus = core.Message("Out of focus.", "out-of-focus")
    monkeypatch.setattr(train, "create_focus_warning", lambda _image: focus)
    with warned("no-copies", match="20 %"), warned("out-of-focus"):
        made = adapt(*place[:1], place[1:], tmp_path / "run")
    assert made.to_json()["explained_percent"] == 70
    assert focus in made.warnings
    assert focus in Path(made.report).read_text()


@pytest.fixture
def asked(monkeypatch):
    given = []

    def note(images, options, **how):
        given.append(how)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit_in_process", note)
    return given


def test_the_grey_values_of_a_training_are_those_of_the_enhancement(
    place, asked, tmp_path
):
    mosaic, _ = place
    with pytest.raises(KeyboardInterrupt):
        adapt(mosaic, place[1:], tmp_path / "run")
    model = load_model("ssum-sem")
    _, scaling = prepare_model_input(mosaic, model, EnhanceOptions(resample="never"))
    assert asked[0]["levels"] == pytest.approx((scaling.low, scaling.high))


@pytest.mark.filterwarnings("ignore:The expected error of the transform")
def test_sem_of_another_place_or_a_pixel_off_is_refused(place, tmp_path):
    other = micrograph(sem_of(objects(100)), "elsewhere")
    with pytest.raises(AdaptationError) as caught:
        adapt(place[0], [other], tmp_path / "run", steps=2)
    assert caught.value.reason in ("pairs-uncorrelated", "no-gain")
    assert not list((tmp_path / "run").glob("*.safetensors"))
    with refused(core.OptionError, "same-image"):
        adapt(place[0], place[:1], tmp_path / "itself")
    off = lying(*place, {"error_nm": 30.0})
    with refused(AdaptationError, "not-registered"):
        adapt(place[0], place[1:], tmp_path / "off", transform=off)


def test_an_earlier_run_is_not_replaced_unasked_or_by_unusable_images(
    adapted, place, tmp_path
):
    (mosaic, sem), folder = place, shutil.copytree(adapted[1], tmp_path / "run")
    state, damaged = folder / train.TRAINING_STATE, tmp_path / "damaged.tif"
    before = state.read_bytes()
    damaged.write_bytes(b"II*\0")
    twice, elsewhere = sem.replace(name="twice"), micrograph(sem_of(objects(9)), "far")
    again = {"overwrite": True}
    for sems, how, code in (
        ([sem], {}, "output-exists"),
        ([sem, twice], again | {"transform": None}, "same-image"),
        ([sem], again | {"apply": [damaged]}, "file-damaged"),
        ([elsewhere], again, "pairs-uncorrelated"),
    ):
        with refused(core.SemsrError, code):
            adapt(mosaic, sems, folder, **how)
        assert state.read_bytes() == before


@pytest.mark.filterwarnings("error")
def test_a_transform_knows_the_files_that_it_was_found_with(place, tmp_path):
    files = [tmp_path / f"{one.name}.ome.tif" for one in place]
    for one, file in zip(place, files, strict=True):
        write(one, file)
    sides = [
        ImageIdentity.from_image(read(file), core.digest_path(file)) for file in files
    ]
    stored = StoredTransform(core.Affine(), *sides, SURE)
    with refused(AdaptationError, "no-gain"):
        adapt(files[0], [files[1]], tmp_path / "run", steps=0, transform=stored)


def test_a_run_takes_its_own_transform(place, adapted, tmp_path):
    mosaic, sem = place
    shutil.copytree(adapted[1], tmp_path, dirs_exist_ok=True)
    stored, steps = tmp_path / "registration-1.json", []
    before = stored.read_text()
    how = {"transform": stored, "report": steps.append}
    for _ in range(2):
        steps.clear()
        adapt(mosaic, [sem], tmp_path, resume=True, **how)
        assert stored.read_text() == before
    assert calls_of(steps) == set()
    with refused(AdaptationError, "no-gain"):
        adapt(mosaic, [sem], tmp_path, steps=0, overwrite=True, **how)
    assert stored.read_text() == before


def calls_of(steps):
    return {
        call for call, work, _ in (one.message.partition(": ") for one in steps) if work
    }


def test_a_resumed_run_repeats_only_what_depends_on_a_change(place, adapted, tmp_path):
    mosaic, sem = place
    first, made_in, _ = adapted
    folder = tmp_path / "run"
    shutil.copytree(made_in, folder)
    other = micrograph(light_of(objects(5)), "other: 5/6")

    def resume(**how):
        steps = []
        how = {"apply": [other], "resume": True, "report": steps.append, **how}
        made = adapt(mosaic, [sem], folder, **how)
        return made, calls_of(steps)

    made, ran = resume()
    assert ran == set()
    assert made.to_json()["evaluated"] == first.to_json()["evaluated"]
    third = micrograph(light_of(objects(6)), "third")
    made, ran = resume(apply=[third, other])
    assert ran == {"enhancing third"}
    shutil.rmtree(folder / "mosaic-enhanced.ome.zarr")
    assert resume()[1] == {"enhancing mosaic"}
    results = {"enhancing mosaic", "enhancing other_5_6"}
    made, ran = resume(steps=65)
    assert (made.steps, ran) == (65, {"model", *results})
    nearer = lying(mosaic, sem, {"error_nm": 0.5})
    made, ran = resume(steps=65, transform=nearer)
    # the same model: its results are not repeated
    assert ran == {"registering SEM image 1", "model"}


@pytest.mark.broad
def test_a_training_in_a_process_leaves_its_state_and_ends_with_a_file(
    place, tmp_path, monkeypatch
):
    light, sem = (one.array() for one in place)
    options = training.AreaOptions(copies=0, batch=1, patch_px=32)
    files = {"state_file": tmp_path / "state.pt", "stop_file": tmp_path / "stop"}
    how = {**files, "levels": (100.0, 900.0), "threads": 1, "seconds": 600.0}
    monkeypatch.setattr(process, "_PATIENCE_S", LIMIT_S)
    job = fit_in_process([training.AreaImages(light, sem)], options, **how)
    for step in job:
        if isinstance(step, training.AreaProgress):
            job.close()
    before = training.load_area_state(files["state_file"])
    assert before["steps"] > 0
    files["stop_file"].touch()
    again = core.run(fit_in_process([training.AreaImages(light, sem)], options, **how))
    assert again.steps == before["steps"]


@pytest.mark.quick(1)
@pytest.mark.parametrize("what", ["sem", "seed", "damaged"])
def test_another_training_does_not_resume_the_state(place, tmp_path, what):
    mosaic, sem = place
    how = {"resume": True}
    with refused(AdaptationError, "no-gain"):
        adapt(mosaic, [sem], tmp_path, steps=3)
    if what == "sem":
        grey = sem.array().copy()
        grey[60, 60] += 1
        sem = sem.replace(data=grey)
    elif what == "seed":
        how["options"] = AdaptOptions(seed=1)
    else:
        (tmp_path / train.TRAINING_STATE).write_bytes(b"PK")
    heard = []
    with core.capture_warnings(heard.append), pytest.raises(AdaptationError) as caught:
        adapt(mosaic, [sem], tmp_path, steps=2, **how)
    assert caught.value.facts["steps"] == 2
    assert ("file-damaged" in map(core.get_error_code, heard)) == (what == "damaged")


def test_a_run_of_an_earlier_version_is_refused(place, tmp_path):
    mosaic, sem = place
    shutil.copytree(FORMER_RUN, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with refused(core.WriteError, "not-resumable"):
        adapt(mosaic, [sem], tmp_path, resume=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.broad
def test_a_new_run_leaves_the_model_of_an_earlier_one_in_the_library(
    place, adapted, tmp_path, monkeypatch
):
    mosaic, sem = place
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    today = datetime.now().astimezone().date()
    taken = f"mosaic-{today.isoformat()}"
    shutil.copyfile(adapted[0].model, tmp_path / "models" / f"{taken}.safetensors")
    made = adapt(mosaic, [sem], tmp_path / "run")
    assert Path(made.model).stem == f"{taken}-2"
    assert read_card(Path(made.model)).name == f"{taken}-2"


def test_a_kept_model_goes_only_when_a_longer_training_is_kept(
    place, adapted, tmp_path, monkeypatch
):
    mosaic, sem = place
    first, made_in, _ = adapted
    shutil.copytree(made_in, tmp_path, dirs_exist_ok=True)
    model = tmp_path / Path(first.model).name
    weights = model.read_bytes()

    def refuse(*_):
        raise AdaptationError("No gain.", "no-gain")

    with monkeypatch.context() as patch:
        patch.setattr(train, "require_gain", refuse)
        with refused(AdaptationError, "no-gain"):
            adapt(mosaic, [sem], tmp_path, steps=65, resume=True)
    assert model.read_bytes() == weights
    longer = adapt(mosaic, [sem], tmp_path, steps=70, resume=True)
    assert Path(longer.model).read_bytes() != weights


@pytest.mark.parametrize("shape", [(500, 300), (64, 160)])
def test_both_parts_lie_apart_and_within(shape):
    taught, held_out = areas.split_training_area(core.Box.from_shape(shape))
    apart = max(held_out.y0 - taught.y1, held_out.x0 - taught.x1)
    assert apart == 32
    assert min(*taught.shape, *held_out.shape) >= 64
    assert max(held_out.y1, held_out.x1) == max(shape)


def test_no_area_trains_on_what_another_evaluates(place, monkeypatch):
    # the held-out part of the second one is of columns 100 to 164
    sems = place[1], core.crop_to_box(place[1], core.Box(0, 128, 0, 164))
    both = [areas.create_shared_area(place[0], one, core.Affine()) for one in sems]
    first, second = areas.exclude_held_out_parts(both)
    assert np.isfinite(both[0].sem.array()).all()
    planes = [*first.crop_training_part(), second.crop_training_part()[1]]
    assert [np.isfinite(one).all(axis=0).sum() for one in planes] == [68] * 3
    records = {k: core.InputRecord(role=k, name=k) for k in ("mosaic", "sem 1")}
    fit = SimpleNamespace(create_card=lambda _, **facts: facts["training"])
    run, lights = SimpleNamespace(records=records), []
    monkeypatch.setattr(analysis.BlockFeatures, "from_parts", lights.extend)
    card = train.create_card(run, "", place[0], [first], fit, (0, 2))
    for entry in card["learnt_from"]:
        np.testing.assert_allclose(entry["areas"], [(-10, -10, 2550, 1350)])
    np.testing.assert_array_equal(lights, [planes[0] / 2])
    with refused(AdaptationError, "not-registered", match="sem is left"):
        areas.exclude_held_out_parts([replace(both[0], training_box=both[0].held_out)])


def test_time_ends_a_training_only_where_it_is_given(place, asked, tmp_path):
    """By default steps do, so that a busy computer makes no worse model."""
    for said in ({}, {"minutes": 2.0}):
        how = {"transform": lying(*place), "options": AdaptOptions.parse(said)}
        with pytest.raises(KeyboardInterrupt):
            core.run(ADAPT.job(*place[:1], place[1:], tmp_path, **how, overwrite=True))
    assert [how["seconds"] for how in asked] == [None, 120.0]
