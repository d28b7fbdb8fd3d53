"""A disk that is full, a folder that goes away: one sentence, nothing lost or half."""

import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_semsr.cli.command import build_parser, load_command
from napari_semsr.core import IncompleteError, SemsrError, describe_error, run
from napari_semsr.io import Project, ProjectLayer, describe, open_project, write_project
from napari_semsr.io.project import ProjectInput
from tests.hostile.commands import LINES, say

pytestmark = pytest.mark.broad
VERBS = [verb for verb, line in LINES.items() if any("out" in word for word in line)]
VERBS = [verb for verb in VERBS if verb != "demo"]
IMAGES = (".tif", ".zarr", ".png")
PAIRS = "out.zarr"  # a store of pairs is no image


def slow(value: object) -> object:
    return pytest.param(value, marks=pytest.mark.slow)


def line_of(verb: str) -> list[str]:
    """Words of a line whose outputs go into the folder `there`."""
    words = [
        f"there/{word}" if word.startswith("out") else word for word in LINES[verb]
    ]
    return [verb, *words]


@contextmanager
def full(size: int) -> Iterator[None]:
    """Let no file grow beyond some bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def whole_or_marked(folder: Path) -> None:
    """Every image under its final name is whole, or says that it is not."""
    for path in folder.iterdir():
        if path.name.endswith(IMAGES) and path.name[0] != "." and path.name != PAIRS:
            try:
                describe(path)
            except IncompleteError:
                continue


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
@pytest.mark.parametrize("size", [slow(0), 600, slow(6000)])
@pytest.mark.parametrize("verb", VERBS)
def test_full_disk_is_one_sentence(verb, size, place):
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    with full(size):
        code, said = say(*line_of(verb))
    assert code in (0, 2), said
    assert all(path.read_bytes() == data for path, data in before.items())
    whole_or_marked(place / "there")
    if code:
        kept = (".part.ome.zarr", ".ome.zarr")
        left = [p for p in (place / "there").iterdir() if p.name.startswith(".")]
        assert all(p.name.endswith(kept) for p in left), left


@pytest.mark.parametrize("gone", ["there", slow(".")])
@pytest.mark.parametrize("step", [slow(0), 1, slow(3)])
@pytest.mark.parametrize("verb", VERBS)
def test_folder_that_goes_away_is_one_sentence(verb, step, gone, place):
    words = line_of(verb)
    steps = 0

    def report(_progress: object) -> None:
        nonlocal steps
        if steps == step:
            for path in [*(place / gone).iterdir(), place / gone]:
                if path.is_dir() and path != place:
                    shutil.rmtree(path)
                elif path != place:
                    path.unlink()
        steps += 1

    arguments = build_parser(verb).parse_args(words)
    output = next(Path(word) for word in words if word.startswith("there/"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(load_command(verb).start(arguments), report)
    except (SemsrError, OSError) as error:
        said = describe_error(error)
    else:  # it was done before, or the folder went away with its last step
        said = "done" if steps <= step + 1 or output.exists() else ""
    assert said
    if (place / "there").is_dir():
        whole_or_marked(place / "there")


def test_links_in_a_circle_are_one_sentence(place):
    Path("a.tif").symlink_to("b.tif")
    Path("b.tif").symlink_to("a.tif")
    Path("broken.tif").symlink_to("nowhere.tif")
    for name in ("a.tif", "broken.tif"):
        for verb in ("info", "metrics"):
            code, said = say(verb, name)
            assert code == 2, said
        assert say("convert", "first.tif", name)[0] in (0, 2)


def test_frames_do_not_lead_out_of_their_folder(place):
    for name in ("../first.tif", "/etc/passwd", "f0.tif/../../first.tif", "a" * 300):
        table = f"frame,y_px,x_px\nf0.tif,0,0\n{name},0,22\n"
        (place / "scan" / "positions.csv").write_text(table)
        code, said = say("stitch", "scan", "-o", "there/out.ome.zarr")
        assert code == 2, said
        assert "inside" in said


@pytest.mark.parametrize("last", ["[*a29]", "{width: *a29}", "&me [*me]"])
def test_aliases_that_multiply_are_one_sentence(last, place):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, 30):
        inner = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} [{inner}]")
    lines.append(f"architecture_options: {last}")
    (place / "laughs.yaml").write_text("\n".join(lines))
    code, said = say("train", "laughs.yaml", "-o", "there/out")
    assert code == 2, said
    assert "aliases" in said


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs devices")
def test_project_whose_input_is_a_device_is_opened_without_it(tmp_path):
    folder = tmp_path / "session.semsr"
    folder.mkdir()
    stamp = [0, 0]
    noted = {"path": "../nowhere.tif", "absolute": "/dev/zero", "stamp": stamp}
    layer = ProjectLayer(kind="image", name="in", input="sha256:0")
    inputs = {"sha256:0": ProjectInput.model_validate(noted)}
    write_project(folder, Project(inputs=inputs, layers=(layer,)))
    opened = run(open_project(folder))
    assert [item.name for item in opened.missing] == ["in"]
