"""Plans: values that JSON holds, carried out once, and read from histories."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import (
    Cancelled,
    OptionError,
    Progress,
    ReadError,
    capture_warnings,
    get_error_code,
    run,
    warn,
)
from napari_semsr.io import ReadOptions, count_planes, read, write
from napari_semsr.jobs import CROP, Result, get_verb
from napari_semsr.jobs.plan import (
    RECORD,
    Call,
    CallOutput,
    File,
    Plan,
    PlanTask,
    Results,
    call as plan_call,
    create_call,
    create_plan,
    execute,
    execute_plans,
    find_output_path,
    read_history,
)
from napari_semsr.jobs.plan.call import Placeholder
from napari_semsr.jobs.plan.execution import CallRecord
from tests.refusals import refused

ALL = Path(__file__).parents[1] / "corpus"
OF_EACH_JOB = (
    *("convert.png", "crop-like.tif", "crop.ome.zarr", "degrade.tif", "register.tif"),
    *("register-found.tif", "stitch.ome.zarr", "stitch-halves.half-b.ome.zarr"),
    *("stitch-height.height.ome.zarr", "stitch-halves.coverage.tif", "enhance-sem.tif"),
    *("enhance-residual.tif", "restore-wiener.tif", "restore-unsaved.tif"),
    *("frc-map.tif", "error-map.tif", "of-repeatability.tif", "spectrum.tif"),
    *("specimen.tif", "exposure.tif", "gold.tif", "difference.tif", "blend.tif"),
)


@pytest.fixture
def image(tmp_path, rng):
    path = tmp_path / "a.tif"
    write(semsr.Micrograph(rng.random((40, 48), np.float32), (5, 5), "a"), path)
    return path


def steps(image=None):
    """Crop an image, or one that is left open, and restore what is left."""
    crop = Call(
        name="cut",
        verb="crop",
        inputs={"image": Placeholder() if image is None else image},
        options={"box": [2, 3, 36, 44]},
        outputs={"output": "cut/a.ome.tif"},
    )
    sharper = Call(
        name="sharper",
        verb="restore",
        inputs={"image": CallOutput(call="cut")},
        options={"psf": "1px"},
        outputs={"output": "sharper/a.ome.tif"},
    )
    return Plan(calls=(crop, sharper))


def execute_in(folder, plan):
    """Carry out a plan with the results of earlier executions; count what ran."""
    results = Results(folder / "results.json", folder)
    run(execute(plan, folder, results))
    return results


def test_plan_survives_json_and_filling():
    plan = steps()
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.placeholders == ("image",)
    assert plan.fill(image=File(path="a.tif")) == steps(File(path="a.tif"))
    with refused(OptionError, "missing-value"):
        plan.fill()


def test_plan_whose_call_reads_what_is_not_there_is_refused():
    cut, sharper = steps().calls
    for calls in ((sharper, cut), (cut, cut)):
        with pytest.raises(OptionError):
            Plan.from_json({"calls": [call.model_dump() for call in calls]})


def test_only_what_changed_runs_again(image, tmp_path):
    plan = steps(File(path=str(image)))
    assert execute_in(tmp_path, plan).ran == 2
    assert execute_in(tmp_path, plan).ran == 0
    cut, sharper = plan.calls
    other = sharper.replace(options={"psf": "2px"})
    assert execute_in(tmp_path, Plan(calls=(cut, other))).ran == 1
    (tmp_path / "cut" / "a.ome.tif").unlink()
    assert execute_in(tmp_path, Plan(calls=(cut, other))).ran == 1
    write(read(image).replace(data=read(image).array() + 1), image, overwrite=True)
    assert execute_in(tmp_path, Plan(calls=(cut, other))).ran == 2


def test_placeholder_takes_an_image_in_memory_and_its_size_counts(image, tmp_path):
    plan, state = steps(), tmp_path / "results.json"

    def execute_with(value):
        results = Results(state, tmp_path, {"image": value})
        run(execute(plan, tmp_path, results))
        return results

    micrograph = read(image)
    results = execute_with(micrograph)
    assert results.ran == 2
    assert results.results["cut"].shape == (34, 41)
    assert read(tmp_path / "cut" / "a.ome.tif").pixel_size_nm == (5, 5)
    again = execute_with(micrograph.replace())
    assert (again.ran, again.results) == (0, {})
    assert execute_with(micrograph.calibrate((6, 6))).ran == 2
    assert read(tmp_path / "cut" / "a.ome.tif").pixel_size_nm == (6, 6)
    assert execute_with(micrograph.replace(data=micrograph.array() + 1)).ran == 2
    assert execute_with(image).ran == 2
    with refused(OptionError, "missing-value"):
        run(execute(plan, tmp_path))


def test_value_that_only_the_function_of_a_command_takes_is_passed_on(image, tmp_path):
    mosaic = read(image)
    noise = np.random.default_rng(1).normal(0, 0.1, (2, *mosaic.shape))
    halves = tuple(mosaic.replace(data=mosaic.array() + one) for one in noise)
    inputs = {"a": Placeholder(), "halves": Placeholder(name="halves")}
    plan = Plan(calls=(Call(name="frc", verb="frc", inputs=inputs),))
    results = Results(None, tmp_path, {"image": mosaic, "halves": halves})
    run(execute(plan, tmp_path, results))
    direct = run(get_verb("frc").job(mosaic, halves=halves))
    assert "halves" in direct.result.method
    assert results.results["frc"].result.method == direct.result.method


def test_call_that_was_interrupted_is_begun_until_it_has_a_result(image, tmp_path):
    """Its options may change, which a longer training does; its inputs may not."""
    cut = steps(File(path=str(image))).calls[0]

    def begin(call):
        results = Results(tmp_path / "results.json", tmp_path)
        run(results.find_valid_record(call))
        return results, run(results.mark_started(call))

    assert not begin(cut)[1]
    results, was_begun = begin(cut.replace(options={"box": [0, 0, 9, 9]}))
    assert was_begun
    write(read(image).replace(data=read(image).array() + 1), image, overwrite=True)
    results, was_begun = begin(cut)
    assert not was_begun
    results.add(cut, CallRecord(figures={}, warnings=[]))
    assert not begin(cut)[1]


def test_record_of_a_call_is_a_file(image, tmp_path):
    cut = steps(File(path=str(image))).calls[0]
    cut = cut.replace(outputs={**cut.outputs, RECORD: "cut/a.json"})
    run(execute(Plan(calls=(cut,)), tmp_path))
    record = json.loads((tmp_path / "cut" / "a.json").read_text("utf-8"))
    assert (record["kind"], record["shape"]) == ("crop", [34, 41])


def test_file_that_changed_is_refused_before_the_call_runs(image, tmp_path):
    run(execute(steps(File(path=str(image))), tmp_path))
    recorded = create_plan(read(tmp_path / "cut/a.ome.tif").provenance, image)
    run(execute(recorded, tmp_path / "again"))
    image.write_bytes(image.read_bytes() + b" ")
    with refused(ReadError, "content-changed"):
        run(execute(recorded, tmp_path / "later"))
    assert not (tmp_path / "later").exists()


def test_progress_is_one_and_a_cancel_keeps_what_is_finished(image, tmp_path):
    plan, seen = steps(File(path=str(image))), []

    def report(step):
        seen.append(step)
        if step.message.startswith("sharper: "):
            raise Cancelled

    results = Results(tmp_path / "results.json", tmp_path)
    with pytest.raises(Cancelled):
        run(execute(plan, tmp_path, results), report)
    assert {step.total for step in seen} == {2000}
    assert 1000 in {step.done for step in seen}
    assert not any(step.equal_steps for step in seen)  # so no time left is said
    assert not (tmp_path / "sharper" / "a.ome.tif").exists()
    assert execute_in(tmp_path, plan).ran == 1


@dataclass(frozen=True, slots=True)
class Loss(Progress):
    """Progress with more than a count, such as that of a training."""

    loss: float = 0.0


def report_loss(run, *_):
    yield Loss(1, 2, "half", 5.0, loss=0.25)
    warn("The loss is high.", "loss-high")
    if run.options.box is not None:
        msg = "The box has no meaning."
        raise OptionError(msg, code="box")
    return Result()


def test_progress_keeps_its_class_and_counts_for_all(image, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_call, "get_verb", lambda _: replace(CROP, run=report_loss))
    cut = steps(File(path=str(image))).calls[0].replace(options={})
    seen = []
    run(execute(Plan(calls=(cut,)), tmp_path), seen.append)
    assert Loss(500, 1000, "cut: half", loss=0.25) in seen


@pytest.mark.parametrize("box", [None, [0, 0, 2, 2]], ids=["finished", "failed"])
def test_warnings_are_repeated(image, tmp_path, monkeypatch, box):
    monkeypatch.setattr(plan_call, "get_verb", lambda _: replace(CROP, run=report_loss))
    cut = steps(File(path=str(image))).calls[0].replace(options={"box": box})
    results, said = Results(None, tmp_path), []
    with suppress(OptionError):
        run(execute(Plan(calls=(cut,)), tmp_path, results))
    with capture_warnings(said.append):
        results.repeat_warnings()
    assert [(one, get_error_code(one)) for one in said] == [
        ("The loss is high.", "loss-high")
    ]


@pytest.mark.parametrize("psf", ["1px", "2px"], ids=["same", "another"])
def test_a_call_that_was_begun_resumes_unless_it_is_another(rng, tmp_path, psf):
    image = tmp_path / "field.tif"
    write(semsr.Micrograph(rng.random((96, 128), np.float32), (5, 5), "a"), image)
    how = {"verb": "restore", "inputs": {"image": File(path=str(image))}}

    def plan(psf):
        options = {"psf": psf, "tile": 32}
        outputs = {"output": "sharper/a.ome.zarr"}
        return Plan(calls=(Call(name="s", options=options, outputs=outputs, **how),))

    def tiles(folder, psf, most=None):
        seen = set()

        def report(step):
            if "tiles" in step.message:
                seen.add(step.done)
            if len(seen) == most:
                raise Cancelled

        run(execute(plan(psf), tmp_path / folder), report)
        return seen

    whole = tiles("whole", psf)
    with pytest.raises(Cancelled):
        tiles("part", "1px", 4)
    again = tiles("part", psf)
    assert (len(again) < len(whole)) == (psf == "1px")
    made = [read(tmp_path / one / "sharper/a.ome.zarr") for one in ("whole", "part")]
    np.testing.assert_array_equal(*(np.asarray(one.data) for one in made))


def test_a_fault_of_one_plan_is_its_outcome_and_what_is_found_is_kept(image, tmp_path):
    gone = File(path=str(tmp_path / "gone.tif"))
    plans = {"gone": steps(gone), "there": steps(File(path=str(image)))}
    tasks = [PlanTask(name, one, str(tmp_path / name)) for name, one in plans.items()]
    found, kept, seen = {}, [], []

    def add(task, outcome):
        found[task.name] = outcome

    job = execute_plans(tasks, add, lambda: kept.append(sorted(found)))
    run(job, lambda step: seen.append((step.done, len(found))))
    assert (found["gone"].ran, list(found["gone"].records)) == (0, [])
    assert get_error_code(found["gone"].error) == "file-missing"
    assert (found["there"].ran, found["there"].error) == (2, None)
    assert kept[-1] == ["gone", "there"]
    assert all(done < 2 * (count + 1) for done, count in seen)  # a result comes first

    def cancel(step):
        if found:
            raise Cancelled

    found.clear()
    with pytest.raises(Cancelled):
        run(execute_plans(tasks, add, lambda: kept.append(sorted(found))), cancel)
    assert kept[-1] == ["gone"]


def test_history_is_the_call_that_ran(image, tmp_path):
    plan = steps(File(path=str(image)))
    run(execute(plan, tmp_path))
    file = tmp_path / "sharper" / "a.ome.tif"
    found = create_plan(read(file).provenance, file)
    assert [call.verb for call in found.calls] == ["crop", "restore"]
    for ran, stored in zip(plan.calls, found.calls, strict=True):
        parse = get_verb(ran.verb).parse
        assert parse(stored.options) == parse(ran.options)
        assert stored.inputs.keys() == ran.inputs.keys()
    first, second = (call.inputs["image"] for call in found.calls)
    assert (first.path, first.name) == (image.as_posix(), "a.tif")
    assert (second.call, second.file.path) == (
        "crop",
        (tmp_path / "cut/a.ome.tif").as_posix(),
    )


def test_history_that_names_several_images_for_one_is_refused(image, tmp_path):
    run(execute(steps(File(path=str(image))), tmp_path))
    made = read(tmp_path / "cut" / "a.ome.tif").provenance
    with refused(ReadError, "several-images"):
        create_plan(made.model_copy(update={"inputs": made.inputs * 2}), image)


@pytest.mark.skipif(not ALL.exists(), reason="not in the source archive")
@pytest.mark.parametrize("name", OF_EACH_JOB)
def test_history_of_a_former_commit_is_a_plan(name):
    path = ALL / "021ca8eb" / "made" / name
    plane = 0 if path.is_file() and count_planes(path) > 1 else None
    made = read(path, plane=plane, colour="luminance").provenance
    history = read_history(made, path)
    plan = history.plan
    assert Plan.from_json(plan.to_json()) == plan
    assert history.records.keys() == {call.name for call in plan.calls}
    last = plan.calls[-1]
    assert plan.result.call == last.name
    assert history.records[last.name] == made
    digests = {r.digest for r in (*made.inputs, *made.guides) if r.digest}
    files = [getattr(one, "file", one) for _, one in last.iterate_inputs()]
    if not name.startswith("stitch-height"):  # whose folder has one digest for all
        assert digests <= {file.digest for file in files if file and file.digest}
    verb = get_verb(last.verb)
    options = {option for one in verb.option_groups for option in one.arguments()}
    assert {*last.inputs, *last.options, *last.outputs} <= {*verb.arguments, *options}
    assert find_output_path(last, Path("folder"), plan.result.part) is not None


def test_call_is_created_from_option_groups_that_the_command_reads_back(tmp_path):
    """The options of each image keep their prefix, and what was not set is left out."""
    register = get_verb("register")
    sets = {
        "options": register.options.parse({"model": "elastic", "search": "full"}),
        "opening": ReadOptions.parse({"pixel_size_nm": [20, 20]}),
        "fixed_opening": ReadOptions.parse({"databar_rows": 12, "channel": 1}),
    }
    inputs = {"moving": "optical", "fixed": File(path="sem.tif")}
    call = create_call("registration", "register", inputs, **sets)
    assert call.inputs["moving"] == Placeholder(name="optical")
    assert register.parse(call.options) == sets
    assert register.parse(Call.parse(call.model_dump()).options) == sets
    assert create_call("a", "enhance", {}, options=None).options == {}
