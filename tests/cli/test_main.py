import json
import os
import signal
import subprocess
import sys
import warnings
from threading import Thread
from types import SimpleNamespace

import pytest

from napari_semsr.cli import command
from napari_semsr.cli.command import load_command, main
from napari_semsr.core import Progress, ReadError, ShapeError, warn
from napari_semsr.jobs import VERBS, Result
from tests import children


def verb_of(name, job):
    return SimpleNamespace(
        configure=load_command(name).configure,
        start=lambda arguments: job(),
        summarise=lambda result: "done",
    )


@pytest.fixture
def info_does(monkeypatch):
    """Let the verb `info` run another job; its one argument stays."""

    def replace(job):
        monkeypatch.setattr(command, "load_command", lambda name: verb_of(name, job))

    return replace


def failing(error):

    def job():
        yield Progress(0, 1, "working")
        raise error

    return job


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_names_it_and_ends_with_0(semsr, verb):
    said = semsr(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"semsr {verb}" in said.out
    assert "--json" in said.out
    assert "default: False" not in said.out
    assert ("(default: 0)" in said.out) >= (verb == "adapt")


def test_wrong_usage_is_one_line_that_says_how(refused):
    for words, needs in (
        ((), "command is required"),
        (("frcmap", "a"), "did you mean `semsr frc-map`?"),
        (("info",), "required: PATH"),
        (("crop", "a"), "required: -o/--output"),
        (("models",), "required: action"),
        (("info", "a", "b"), "argument b"),
        (("info", "a", "--jsn"), "did you mean --json?"),
        (("info", "a", "--data-set=a"), "did you mean --dataset?"),
        (("info", ""), "must not be empty"),
        (("frc", "a", "--criterion", "2/7"), "'2/7'"),
    ):
        line = refused(*words)
        assert needs in line
        assert "--help`" in line


@pytest.mark.parametrize(
    ("error", "needs"),
    [
        (ReadError("It must be an image."), "It must be an image."),
        (OSError(28, "No space left on device", "x.tif"), "No space left"),
        (MemoryError(), "Not enough memory"),
        (ZeroDivisionError("by\nzero"), "Unexpected ZeroDivisionError: by zero"),
    ],
    ids=["ours", "system", "memory", "unforeseen"],
)
def test_each_kind_of_error_is_one_line(semsr, info_does, error, needs):
    info_does(failing(error))
    said = semsr("info", "x")
    assert (said.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert needs in said.err
    assert "Traceback" in semsr("info", "x", "--debug").err


def test_what_nobody_foresaw_is_kept_in_a_log(semsr, info_does, monkeypatch, tmp_path):
    log = tmp_path / "made" / "errors.log"
    monkeypatch.setenv("SEMSR_LOG", str(log))
    info_does(failing(ReadError("It must be an image.")))
    semsr("info", "x")
    assert not log.exists()
    info_does(failing(ZeroDivisionError("by zero")))
    semsr("info", "x")
    kept = log.read_text("utf-8")
    assert "semsr info" in kept
    assert "Traceback" in kept


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (("register", "a.tif", "b.tif", "-o", "c.tif"), "Interrupted.\n"),
        (("metrics", "folder"), "Interrupted.\n"),
        (("metrics", "folder", "--table=t.csv"), " --resume "),
        (("enhance", "a.tif", "-o", "c.ome.zarr"), " --resume "),
        (("demo", "out"), "run the command again to"),
    ],
)
def test_an_interrupt_names_kept_results_only_where_there_may_be_some(
    semsr, monkeypatch, words, way
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_command", interrupt)
    said = semsr(*words)
    assert said.code == 130
    assert way in said.err


@pytest.fixture
def interrupt_is():
    """Let an interrupt be handled in another way, for one test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_that_a_library_makes_an_error_of_is_one(
    semsr, info_does, interrupt_is, number
):
    def job():
        yield Progress(0, 1, "working")
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise ValueError("no matrix") from None

    interrupt_is(signal.default_int_handler)
    terminate = signal.getsignal(signal.SIGTERM)
    info_does(job)
    said = semsr("info", "x")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is terminate
    assert (said.code, said.err) == (130, "semsr info: Interrupted.\n")


def test_interrupt_that_is_ignored_stays_so(semsr, info_does, interrupt_is):
    def job():
        yield Progress(0, 1, "working")
        signal.raise_signal(signal.SIGINT)
        yield Progress(1, 1, "done")

    interrupt_is(signal.SIG_IGN)
    info_does(job)
    assert semsr("info", "x").code != 130
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_warnings_of_ours_are_said_once_and_stand_in_the_record(semsr, info_does):
    def job():
        for _ in range(2):
            warnings.warn_explicit("mind\nthis", UserWarning, command.__file__, 1)
        warnings.warn_explicit("theirs", UserWarning, "elsewhere.py", 1)
        yield Progress(1, 1, "done")
        return Result()

    info_does(job)
    said = semsr("info", "x", "--json")
    assert said.record["warnings"] == ["mind this"]
    assert said.record["warning_codes"] == ["note"]
    assert said.err == "semsr: warning: mind this\n"
    assert semsr("info", "x", "--json", "--quiet").err == ""


def test_a_refusal_and_what_was_warned_of_before_it_have_codes(semsr, info_does):
    def job():
        yield Progress(0, 1, "working")
        warn("It is blurred.", "blurred")
        warn("It is dark.", "dark")
        raise ShapeError("No place.", code="nothing-placed")

    info_does(job)
    said = semsr("info", "x", "--json", "--quiet")
    assert said.err == "semsr info: No place.\n"
    assert said.record == {
        "kind": "info",
        "code": "nothing-placed",
        "message": "No place.",
        "warnings": ["It is blurred.", "It is dark."],
        "warning_codes": ["blurred", "dark"],
    }
    assert len(semsr("info", "x").err.splitlines()) == 3
    record = semsr("info", "missing.tif", "--json", "--no-such-option").record
    assert record["code"] == "unknown-option"


def test_main_in_another_thread_leaves_signals_alone(images, capsys):
    codes = []
    line = ["info", str(images / "first.tif"), "--json"]
    thread = Thread(target=lambda: codes.append(main(line)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert json.loads(capsys.readouterr().out)["dtype"] == "float32"


@pytest.mark.broad
@pytest.mark.parametrize("streams", ["", ">&-", ">&- 2>&-", "2>&1", ">/dev/full"])
@pytest.mark.parametrize(
    ("name", "code"), [("first.tif", 0), ("none.tif", 2), ("--help", 0)]
)
def test_closed_streams_are_no_error(streams, name, code, images):
    reader, writer = os.pipe()
    os.close(reader)
    line = f'exec "$0" -m napari_semsr info "$1" --json {streams}'
    words = ["sh", "-c", line, sys.executable, name]
    done = children.run(words, cwd=images, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    code = 2 if "full" in streams else code
    assert done.returncode == code
    assert done.stderr.count("\n") <= code / 2


def test_help_and_info_load_no_torch(images):
    code = (
        "import sys; from napari_semsr.cli.command import main; main(['--help']); "
        f"main(['info', {str(images / 'first.tif')!r}]); "
        "print({'torch', 'qtpy', 'napari', 'matplotlib'} & {*sys.modules})"
    )
    assert children.run_python(code).splitlines()[-1] == "set()"


def test_process_that_helps_to_train_leaves_talking_to_the_first(
    semsr, monkeypatch, tmp_path
):
    def job():
        yield Progress(0, 0, "learning")
        return Result()

    monkeypatch.setattr(command, "load_command", lambda name: verb_of(name, job))
    line = ("train", "r.yaml", "-o", tmp_path / "run")
    assert semsr(*line).out == "done\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    said = semsr(*line)
    assert (said.code, said.out, said.err) == (0, "", "")
