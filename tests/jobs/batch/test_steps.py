"""What a steps file must not be: each is one sentence, before anything is written."""

import re

import numpy as np
import pytest
import tifffile
from pydantic.fields import FieldInfo

from napari_semsr.cli.command import list_arguments
from napari_semsr.core import OptionError, SemsrError, WriteError, get_display
from napari_semsr.jobs import VERBS, Output, get_verb, plan_batch
from napari_semsr.jobs.batch.steps import NO_STEPS
from napari_semsr.jobs.plan.execution import collect_arguments
from tests.refusals import refused

HEAD = "inputs: scans\noutput: made\n"


@pytest.fixture
def refuse(scans, tmp_path, batch):
    """Run a text as steps, and give the sentence that refuses it."""

    def go(text, **how):
        path = tmp_path / "steps.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SemsrError) as caught:
            batch(path, **how)
        said = str(caught.value)
        assert "\n" not in said
        assert len(said) < 500
        assert not (tmp_path / "made").exists()
        return said

    return go


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("", "must define inputs, output and steps, but is empty"),
        ("- frc", "must define inputs, output and steps, but has no entries"),
        ("inputs: [", "as a steps file"),
        (b"\xff\xfe\x00", "as a steps file"),
        ("steps: !!python/object/apply:os.system ['true']", "could not determine"),
        ("a: &a [1]\nb: *a", "alias"),
        ("inputs: a\ninputs: b", "'inputs' occurs twice"),
        ("a: " + "[" * 40 + "]" * 40, "16 levels deep"),
        ("a: " + "[" * 100_000, "16 levels deep"),
        ("a: " + "9" * 10_000, "as a steps file"),
        ("#" * (1 << 20) + "\n", "above the limit of 1 MiB"),
        (f"{HEAD}stepz: []", "unknown entry 'stepz'"),
        ("output: made\nsteps: [frc]", "for inputs, but has none."),
        ("inputs: scans\nsteps: [frc]", "for output, but has none."),
        ("inputs: 3\noutput: made\nsteps: [frc]", "for inputs, but has 3."),
        (f"{HEAD}steps: []", "list of commands"),
        (f"{HEAD}steps: [{{restore: {{dtype: object}}}}]", "such as uint8 or float32"),
        (f"{HEAD}steps: frc", "list of commands"),
        (f"{HEAD}steps: [{'frc, ' * 101}]", "at most 100"),
        (f"{HEAD}steps: [frc]\nreport: 3", "report must be"),
        (f"{HEAD}steps: [frc]\nreport: {{output: /tmp/a.html}}", "must not set output"),
        (
            f"{HEAD}steps: [frc]\nreport: {{inputs: /etc}}",
            "must not set inputs, which is set by the batch",
        ),
        (f"{HEAD}steps: [frc]\nreport: {{output=/tmp/a: b}}", "no option 'output=/tmp"),
        (f"{HEAD}steps: [frc]\nreport: {{criterion: 3/4}}", "'3-sigma', got '3/4'"),
        (f"{HEAD}steps: [frc]\nreport: {{title: {{a: 1}}}}", "`title` must be a text"),
        ("inputs: none\noutput: made\nsteps: [frc]", "does not exist"),
        ('inputs: "no\\nne"\noutput: made\nsteps: [frc]', r"no\nne"),
        ('inputs: "*\\0"\noutput: made\nsteps: [frc]', "has an invalid path for"),
        (f"inputs: {'a' * 999}\noutput: made\nsteps: [frc]", "has an invalid path for"),
        (
            f"inputs: scans\noutput: {'a' * 999}\nsteps: [frc]",
            "has an invalid path for",
        ),
        (f'{HEAD}steps: [{{"fr\\nc": , gaps: }}]', "must be one command"),
        (f'{HEAD}steps: [restore: {{output: "a\\0.tif"}}]', "inside the output"),
        ("inputs: 'none*.tif'\noutput: made\nsteps: [frc]", "No file matches"),
        ("inputs: scans\noutput: scans/s0.tif\nsteps: [frc]", "must be a folder"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_are_no_steps_is_a_sentence(refuse, text, needs):
    assert needs in refuse(text)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("step", "needs"),
    [
        ("sharpen", "'sharpen', which is not a command"),
        ("restor", "restore"),
        ("batch", "cannot run batches"),
        ("models: {action: list}", "manages models"),
        ("demo", "simulates its own samples"),
        ("3", "must be a command"),
        ("[frc]", "must be a command"),
        ("{frc: , gaps: }", "must be one command"),
        ("{name: a}", "must be one command"),
        ("frc: half-bit", "must be a table of name: value"),
        ("{name: ../a, frc: }", "lower-case letters"),
        ("{name: 3, frc: }", "lower-case letters"),
        ("frc: {criterium: 1/7}", "no option 'criterium'; did you mean criterion?"),
        ("frc: {criterion: 2/7}", "must be '1/7', 'half-bit' or '3-sigma', got '2/7'"),
        ("frc: {pixel_size_nm: 2026-01-01}", "a text, a number or a list"),
        ("frc: {criterion: yes}", "'half-bit' or '3-sigma', got True"),
        ("metrics: {reference: no}", "a text, a number or a list"),
        ("restore: {overwrite: true}", "must not set overwrite"),
        ("restore: {psf: '{0.__class__}'}", "uses {0.__class__}, but may only use"),
        ("restore: {psf: '{dose}'}", "uses {dose}, but may only use {input}"),
        ("metrics: {reference: '{step.metrics}'}", "must not form a cycle"),
        ("metrics: {reference: '{step.last}'}", "must not form a cycle"),
        ("metrics: {reference: '{step.first}'}", "writes no file"),
        ("metrics: {reference: '{step.other}'}", "uses {step.other}"),
        ("metrics: {reference: 'truth/{name}.tif'}", "truth/s0.tif"),
        (
            "restore: {psf: kernel.tif}",
            "needs psf kernel.tif, but the file does not exist",
        ),
        ("restore: {psf: '{name}-kernel'}", "needs psf s0-kernel, but the file"),
        (
            "stitch: {flat-field: '{name}-flat'}",
            "needs flat_field s0-flat, but the file",
        ),
        ("restore: {psf: '2'}", "a positive width with its unit"),
        ("register: {}", "needs fixed: the image"),
        ("calibrate: {}", "`pitch_nm` must be given"),
        ("enhance: {model: nothing}", "nothing"),
        ("enhance: {--scheduler: null}", "must not set scheduler"),
        ("crop: {like: ['{input}', '{input}']}", "one file for like"),
        ("restore: {output: null}", "needs output: file of the result"),
        ("error-map: {output: ''}", "needs output: path of the map"),
        ("restore: {output: 'a/../../{name}.tif'}", "inside the output folder"),
        ("restore: {output: /tmp/away.tif}", "inside the output folder"),
        ("restore: {output: '{input}'}", "inside the output folder"),
        (r"restore: {output: 'C:\{name}.tif'}", "inside the output folder"),
        (r"restore: {output: '..\{name}.tif'}", "inside the output folder"),
        ("restore: {output: .batch/s0.json}", "which is reserved for the batch."),
        ("restore: {output: ./Table.csv}", "which is reserved for the batch."),
        ("restore: {output: report-2.html}", "which is reserved for the batch."),
        ("enhance: {residual_map: /tmp/m.tif}", "inside the output folder"),
        ("restore: {output: all.tif}", "would be written twice"),
        ("restore: {output: 'restore-2/{name}.ome.tif'}", "would be written twice"),
        ("restore: {output: 'last/S0.ome.tif/{name}.tif'}", "must not be inside"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_step_that_cannot_be_is_a_sentence(refuse, step, needs):
    first = "{name: first, metrics: }"
    last = "{name: last, degrade: {output: '{name}.tif'}}"
    if "restore-2" in step:
        last = "{name: restore-2, degrade: }"
    if "last/S0" in step:
        last = "{name: last, degrade: {output: 'last/{name}.ome.tif'}}"
    if not step.startswith(("{", "[")) and ":" in step:
        step = f"{{{step}}}"
    said = refuse(f"{HEAD}steps:\n- {first}\n- {step}\n- {last}\n")
    assert needs in said, said


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
    ("table", "needs"),
    [
        ("", "must have the column image"),
        ("image\n", "has no row"),
        ("picture\ns0.tif\n", "must have the column image"),
        (
            "image,name\nscans/s0.tif\n",
            "must have 2 cells, of which image names one",
        ),
        ("image\nscans/s99.tif\n", "does not exist"),
        ("image\nscans/s0.tif\n./scans/s0.tif\n", "Two inputs have the same name s0"),
        (
            "image,name\nscans/s0.tif,A\nscans/s1.tif,a\n",
            "Two inputs have the same name a",
        ),
        ("image,input\nscans/s0.tif,3\n", "column 'input'"),
        ("image,error\nscans/s0.tif,3\n", "column 'error'"),
    ],
)
def test_a_table_that_names_no_images_is_a_sentence(refuse, tmp_path, table, needs):
    (tmp_path / "list.csv").write_text(table)
    assert needs in refuse("inputs: list.csv\noutput: made\nsteps: [metrics]")


def test_images_of_one_name_in_two_folders_are_refused(refuse, scans):
    (scans / "more").mkdir()
    (scans / "more" / "s3.tif").write_bytes((scans / "s3.tif").read_bytes())
    said = refuse("inputs: 'scans/**/*.tif'\noutput: made\nsteps: [metrics]")
    assert "Two inputs have the same name s3" in said
    assert "column" in said


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
                with pytest.raises(
                    OptionError, match=f"must not set {flag}, which is set by the batch"
                ):
                    plan(verb.name, {flag: True})
            elif not is_for_a_person(verb.arguments[action.dest]):
                given[flag] = False if action.nargs == 0 else None
    try:
        plan(verb.name, given)
    except OptionError as error:  # of what has no usual value
        assert re.search(r"needs |must be given", str(error))  # noqa: PT017


def test_no_value_reaches_beyond_its_folder(plan, verb):
    """Whatever the verb: no output away, no file that is missing, no address."""
    for name, item in verb.arguments.items():
        if isinstance(item, Output):
            value, needs = "../away", "inside the output folder"
        elif isinstance(item, FieldInfo):
            value, needs = "tcp://a:1", f"not set {name}"
        else:
            value, needs = (
                "gone.tif",
                f"needs {name} gone.tif, but the file does not exist",
            )
        free = isinstance(item, FieldInfo) and not is_for_a_person(item)
        if not free and name != "model" and not getattr(item, "takes_name", False):
            with pytest.raises(SemsrError, match=needs):
                plan(verb.name, {f"--{name.replace('_', '-')}": value})


def test_what_a_verb_is_told_to_write_is_kept_in_the_folder():
    for verb in STEPS:
        for action in list_arguments(verb.name):
            item = verb.arguments.get(action.dest)
            told = " ".join(filter(None, (action.help, str(action.metavar))))
            if item is not None and ("OUT" in told.split() or "write " in told[:6]):
                assert isinstance(item, Output), (verb, action.dest)
