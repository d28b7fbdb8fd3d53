"""What a steps file must not be: each is one sentence, before anything is written."""

import numpy as np
import pytest
import tifffile
from pydantic.fields import FieldInfo

from napari_semsr.cli.command import list_arguments
from napari_semsr.core import (
    OptionError,
    SemsrError,
    WriteError,
    get_display,
    get_error_code,
)
from napari_semsr.jobs import VERBS, Output, get_verb, plan_batch
from napari_semsr.jobs.batch.steps import NO_STEPS
from napari_semsr.jobs.plan.execution import collect_arguments
from tests.refusals import refused

HEAD = "inputs: scans\noutput: made\n"


@pytest.fixture
def refuse(scans, tmp_path, batch):
    """Run a text as steps, and give the sentence that refuses it by this code."""

    def go(text, code):
        path = tmp_path / "steps.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with refused(SemsrError, code) as caught:
            batch(path)
        said = str(caught.value)
        assert "\n" not in said
        assert len(said) < 500
        assert not (tmp_path / "made").exists()
        return said

    return go


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("", "wrong-type", "inputs, output and steps"),
        ("- frc", "wrong-type", "inputs, output and steps"),
        ("inputs: [", "content-invalid", ""),
        (b"\xff\xfe\x00", "content-invalid", ""),
        (
            "steps: !!python/object/apply:os.system ['true']",
            "content-invalid",
            "os.system",
        ),
        ("a: &a [1]\nb: *a", "content-invalid", "(*)"),
        ("inputs: a\ninputs: b", "content-invalid", "'inputs'"),
        ("a: " + "[" * 40 + "]" * 40, "content-invalid", " 16 "),
        ("a: " + "[" * 100_000, "content-invalid", " 16 "),
        ("a: " + "9" * 10_000, "content-invalid", ""),
        ("#" * (1 << 20) + "\n", "file-too-large", " 1 MiB; "),
        (f"{HEAD}stepz: []", "unknown-option", "'stepz'"),
        ("output: made\nsteps: [frc]", "missing-value", " inputs,"),
        ("inputs: scans\nsteps: [frc]", "missing-value", " output,"),
        (
            "inputs: 3\noutput: made\nsteps: [frc]",
            "missing-value",
            " inputs, but has 3.",
        ),
        (f"{HEAD}steps: []", "wrong-type", "steps "),
        (f"{HEAD}steps: [{{restore: {{dtype: object}}}}]", "unknown-value", "`dtype`"),
        (f"{HEAD}steps: frc", "wrong-type", "steps "),
        (f"{HEAD}steps: [{'frc, ' * 101}]", "out-of-range", " 100 steps, got 101"),
        (f"{HEAD}steps: [frc]\nreport: 3", "wrong-type", "report "),
        (
            f"{HEAD}steps: [frc]\nreport: {{output: /tmp/a.html}}",
            "unknown-option",
            " output,",
        ),
        (f"{HEAD}steps: [frc]\nreport: {{inputs: /etc}}", "unknown-option", " inputs,"),
        (
            f"{HEAD}steps: [frc]\nreport: {{output=/tmp/a: b}}",
            "unknown-option",
            "'output=/tmp/a'",
        ),
        (
            f"{HEAD}steps: [frc]\nreport: {{criterion: 3/4}}",
            "unknown-value",
            "'3-sigma', got '3/4'",
        ),
        (f"{HEAD}steps: [frc]\nreport: {{title: {{a: 1}}}}", "wrong-type", "`title`"),
        ("inputs: none\noutput: made\nsteps: [frc]", "file-missing", ""),
        ('inputs: "no\\nne"\noutput: made\nsteps: [frc]', "file-missing", r"no\nne"),
        ('inputs: "*\\0"\noutput: made\nsteps: [frc]', "wrong-type", ""),
        (f"inputs: {'a' * 999}\noutput: made\nsteps: [frc]", "wrong-type", ""),
        (f"inputs: scans\noutput: {'a' * 999}\nsteps: [frc]", "wrong-type", ""),
        (f'{HEAD}steps: [{{"fr\\nc": , gaps: }}]', "wrong-type", ""),
        (
            f'{HEAD}steps: [restore: {{output: "a\\0.tif"}}]',
            "outside-folder",
            r"'a\x00.tif'",
        ),
        (
            "inputs: 'none*.tif'\noutput: made\nsteps: [frc]",
            "file-missing",
            "none*.tif",
        ),
        (
            "inputs: scans\noutput: scans/s0.tif\nsteps: [frc]",
            "output-is-file",
            "s0.tif",
        ),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_are_no_steps_is_a_sentence(refuse, text, code, value):
    assert value in refuse(text, code)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("step", "code", "value"),
    [
        ("sharpen", "verb-unknown", "'sharpen'"),
        ("restor", "verb-unknown", "restore"),
        ("batch", "verb-unsuitable", " batch,"),
        ("models: {action: list}", "verb-unsuitable", " models,"),
        ("demo", "verb-unsuitable", " demo,"),
        ("3", "wrong-type", "Step 2 "),
        ("[frc]", "wrong-type", "Step 2 "),
        ("{frc: , gaps: }", "wrong-type", ""),
        ("{name: a}", "wrong-type", ""),
        ("frc: half-bit", "wrong-type", "'half-bit'"),
        ("{name: ../a, frc: }", "name-invalid", " 40 "),
        ("{name: 3, frc: }", "name-invalid", " 40 "),
        (
            "frc: {criterium: 1/7}",
            "unknown-option",
            "'criterium'; did you mean criterion?",
        ),
        (
            "frc: {criterion: 2/7}",
            "unknown-value",
            "'1/7', 'half-bit' or '3-sigma', got '2/7'",
        ),
        ("frc: {pixel_size_nm: 2026-01-01}", "wrong-type", "Step 2 "),
        ("frc: {criterion: yes}", "unknown-value", "'half-bit' or '3-sigma', got True"),
        ("metrics: {reference: no}", "wrong-type", "Step 2 "),
        ("restore: {overwrite: true}", "unknown-option", " overwrite,"),
        ("restore: {psf: '{0.__class__}'}", "unknown-value", " {0.__class__}, "),
        ("restore: {psf: '{dose}'}", "unknown-value", " {dose}, "),
        ("metrics: {reference: '{step.metrics}'}", "unknown-value", " {step."),
        ("metrics: {reference: '{step.last}'}", "unknown-value", " {step."),
        ("metrics: {reference: '{step.first}'}", "unknown-value", " {step.first}, "),
        ("metrics: {reference: '{step.other}'}", "unknown-value", " {step.other}, "),
        ("metrics: {reference: 'truth/{name}.tif'}", "file-missing", "truth/s0.tif"),
        ("restore: {psf: kernel.tif}", "file-missing", " psf kernel.tif,"),
        ("restore: {psf: '{name}-kernel'}", "file-missing", " psf s0-kernel,"),
        ("stitch: {flat-field: '{name}-flat'}", "file-missing", " flat_field s0-flat,"),
        ("restore: {psf: '2'}", "unknown-value", "`psf`"),
        ("register: {}", "missing-value", " fixed: "),
        ("calibrate: {}", "missing-value", "`pitch_nm`"),
        ("enhance: {model: nothing}", "model-unknown", "'nothing'"),
        ("enhance: {--scheduler: null}", "unsafe-content", " scheduler,"),
        ("crop: {like: ['{input}', '{input}']}", "wrong-type", " like, got 2"),
        ("restore: {output: null}", "missing-value", " output: "),
        ("error-map: {output: ''}", "missing-value", " output: "),
        ("restore: {output: 'a/../../{name}.tif'}", "outside-folder", "{name}.ome.tif"),
        ("restore: {output: /tmp/away.tif}", "outside-folder", "{name}.ome.tif"),
        ("restore: {output: '{input}'}", "outside-folder", "{name}.ome.tif"),
        (r"restore: {output: 'C:\{name}.tif'}", "outside-folder", "{name}.ome.tif"),
        (r"restore: {output: '..\{name}.tif'}", "outside-folder", "{name}.ome.tif"),
        ("restore: {output: .batch/s0.json}", "name-taken", "Step 2 "),
        ("restore: {output: ./Table.csv}", "name-taken", "Step 2 "),
        ("restore: {output: report-2.html}", "name-taken", "Step 2 "),
        ("enhance: {residual_map: /tmp/m.tif}", "outside-folder", "{name}.ome.tif"),
        ("restore: {output: all.tif}", "outputs-coincide", " of s0 "),
        (
            "restore: {output: 'restore-2/{name}.ome.tif'}",
            "outputs-coincide",
            " of s0 ",
        ),
        (
            "restore: {output: 'last/S0.ome.tif/{name}.tif'}",
            "outputs-coincide",
            "last/s0.ome.tif of step last of s0",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_step_that_cannot_be_is_a_sentence(refuse, step, code, value):
    first = "{name: first, metrics: }"
    last = "{name: last, degrade: {output: '{name}.tif'}}"
    if "restore-2" in step:
        last = "{name: restore-2, degrade: }"
    if "last/S0" in step:
        last = "{name: last, degrade: {output: 'last/{name}.ome.tif'}}"
    if not step.startswith(("{", "[")) and ":" in step:
        step = f"{{{step}}}"
    said = refuse(f"{HEAD}steps:\n- {first}\n- {step}\n- {last}\n", code)
    assert value in said, said


def test_a_cell_that_names_a_folder_is_text_in_an_output(scans, tmp_path, batch):
    (tmp_path / "wt").mkdir()
    (tmp_path / "t.csv").write_text("image,group\nscans/s0.tif,wt\n")
    steps = [{"restore": {"psf": "1px", "output": "{group}/{name}.tif"}}]
    inputs, made = str(tmp_path / "t.csv"), tmp_path / "made"
    [row] = batch({"inputs": inputs, "output": str(made), "steps": steps}).rows
    assert row["restore_output"] == "wt/s0.tif"


def test_a_link_in_the_output_folder_leads_nowhere(scans, tmp_path, batch):
    (tmp_path / "away").mkdir()
    made = tmp_path / "made"
    (made / ".batch").mkdir(parents=True)
    (made / "degrade").symlink_to(tmp_path / "away")
    asked = {"inputs": str(scans), "output": str(made), "steps": ["degrade"]}
    with refused(OptionError, "outside-folder"):
        batch(asked)
    assert not any((tmp_path / "away").iterdir())


def test_the_folder_of_what_is_finished_is_no_link(scans, tmp_path, batch):
    (tmp_path / "away").mkdir()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / ".batch").symlink_to(tmp_path / "away")
    asked = {"inputs": str(scans), "output": str(tmp_path / "made"), "steps": ["frc"]}
    with refused(WriteError, "outside-folder"):
        batch(asked)
    assert not any((tmp_path / "away").iterdir())


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("table", "code", "value"),
    [
        ("", "table-invalid", " image, "),
        ("image\n", "table-invalid", ""),
        ("picture\ns0.tif\n", "table-invalid", " image, "),
        ("image,name\nscans/s0.tif\n", "table-invalid", "Line 2 "),
        ("image\nscans/s99.tif\n", "file-missing", ""),
        ("image\nscans/s0.tif\n./scans/s0.tif\n", "names-alike", " s0, "),
        ("image,name\nscans/s0.tif,A\nscans/s1.tif,a\n", "names-alike", " a, "),
        ("image,input\nscans/s0.tif,3\n", "name-taken", "'input'"),
        ("image,error\nscans/s0.tif,3\n", "name-taken", "'error'"),
    ],
)
def test_a_table_that_names_no_images_is_a_sentence(
    refuse, tmp_path, table, code, value
):
    (tmp_path / "list.csv").write_text(table)
    said = refuse("inputs: list.csv\noutput: made\nsteps: [metrics]", code)
    assert value in said


def test_images_of_one_name_in_two_folders_are_refused(refuse, scans):
    (scans / "more").mkdir()
    (scans / "more" / "s3.tif").write_bytes((scans / "s3.tif").read_bytes())
    said = refuse(
        "inputs: 'scans/**/*.tif'\noutput: made\nsteps: [metrics]", "names-alike"
    )
    assert " s3, " in said


@pytest.fixture
def plan(tmp_path):
    """Plan one step over one image, and give the values of its verb."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    asked = {"inputs": str(tmp_path / "a.tif"), "output": str(tmp_path / "made")}

    def go(verb, options):
        made = plan_batch(asked | {"steps": [{verb: options}]})
        (call,) = made.images[0].plan.calls
        return collect_arguments(call, {}, made.folder)

    return go


def test_a_value_like_a_flag_stays_a_value(plan, tmp_path):
    values = plan("figure", {"caption": "--output=/tmp/a"})
    assert values.pop("output") == str(tmp_path / "made" / "figure" / "a.png")
    assert values == {"images": [str(tmp_path / "a.tif")], "caption": "--output=/tmp/a"}


def test_values_are_typed_and_flags_by_themselves_are_true(plan, tmp_path):
    table = {"box": [0, "1", 4, 5], "pixel-size-nm": 7.5, "no-crop-databar": True}
    values = plan("crop", table)
    assert values["box"] == [0, "1", 4, 5]
    assert (values["pixel_size_nm"], values["crop_databar"]) == (7.5, False)
    assert plan("calibrate", {"bar": True})["bar"] is True
    assert plan("enhance", {"no_resample": True})["resample"] == "never"
    assert "resample" not in plan("enhance", {"no_resample": False})
    fixed = {"fixed": "{input}", "model": "affine"}
    assert plan("register", fixed)["model"] == "affine"


STEPS = [get_verb(name) for name in VERBS if name not in NO_STEPS]


@pytest.fixture(params=STEPS, ids=lambda verb: verb.name)
def verb(request):
    return request.param


def is_for_a_person(item):
    return isinstance(item, FieldInfo) and get_display(item).user_only


def test_a_step_takes_what_its_command_takes(plan, verb):
    """All flags, of which nothing is said; the rest is left to the batch."""
    left = {"overwrite", "resume", "table"} - verb.arguments.keys()
    given = {}
    for action in list_arguments(verb.name):
        for flag in (one for one in action.option_strings if one.startswith("--")):
            if action.dest in left:
                with refused(OptionError, "unknown-option", match=f" {flag}"):
                    plan(verb.name, {flag: True})
            elif not is_for_a_person(verb.arguments[action.dest]):
                given[flag] = False if action.nargs == 0 else None
    try:
        plan(verb.name, given)
    except OptionError as error:  # of what has no usual value
        assert get_error_code(error) == "missing-value"  # noqa: PT017


def test_no_value_reaches_beyond_its_folder(plan, verb):
    """Whatever the verb: no output away, no file that is missing, no address."""
    for name, item in verb.arguments.items():
        if isinstance(item, Output):
            value, code, values = "../away", "outside-folder", "'../away'"
        elif isinstance(item, FieldInfo):
            value, code, values = "tcp://a:1", "unsafe-content", f" {name}, "
        else:
            value, code, values = "gone.tif", "file-missing", f" {name} gone.tif"
        free = isinstance(item, FieldInfo) and not is_for_a_person(item)
        if not free and name != "model" and not getattr(item, "takes_name", False):
            with refused(SemsrError, code, match=values):
                plan(verb.name, {f"--{name.replace('_', '-')}": value})


def test_what_a_verb_is_told_to_write_is_kept_in_the_folder():
    for verb in STEPS:
        for action in list_arguments(verb.name):
            item = verb.arguments.get(action.dest)
            told = " ".join(filter(None, (action.help, str(action.metavar))))
            if item is not None and ("OUT" in told.split() or "write " in told[:6]):
                assert isinstance(item, Output), (verb, action.dest)
