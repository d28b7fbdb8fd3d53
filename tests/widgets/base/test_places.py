"""Temporary folders: swept or offered when their session has died, and only then."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from napari_semsr.widgets.base.places import (
    create_temporary_folder,
    find_abandoned_results,
    remove_temporary_folder,
)
from napari_semsr.widgets.base.results import (
    get_cache_folder,
    is_unsaved,
)
from napari_semsr.widgets.base.session import get_session
from tests.children import LIMIT_MS, LIMIT_S

SESSION = """
import sys
from pathlib import Path
import numpy as np
from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.widgets.base.places import create_temporary_folder
folder = create_temporary_folder(Path(sys.argv[1]))
for name in sys.argv[2:]:
    image = Micrograph(np.arange(64.0).reshape(8, 8), None, name)
    write(image, folder / f"{name}.ome.zarr")
(folder / "part.ome.zarr").mkdir()
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(tmp_path):
    """Start a session in a process of its own; gives the process and its folder."""
    started = []

    def start(*names):
        child = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(tmp_path), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        folder = tmp_path / child.stdout.readline().strip()
        return child, folder

    yield start
    for child in started:
        child.kill()
        child.communicate(timeout=LIMIT_S)


def age(folder, days):
    """Let a folder be as old as that."""
    then = time.time() - days * 86400
    for item in (*folder.iterdir(), folder):
        os.utime(item, (then, then))


def test_only_a_killed_session_is_swept_or_offered(session, tmp_path):
    (dead, left), (_, used), (empty, swept) = session("a", "b"), session("c"), session()
    age(used, 400)
    for child in (dead, empty):
        child.kill()
        child.wait(LIMIT_S)
    mark = json.loads((left / "session.json").read_text())
    mark["process"] = os.getpid()  # a number that another process has now
    (left / "session.json").write_text(json.dumps(mark))
    made = create_temporary_folder(tmp_path)
    found = {left: [left / "a.ome.zarr", left / "b.ome.zarr"]}
    assert find_abandoned_results(tmp_path) == found
    assert not swept.exists()
    assert (used / "c.ome.zarr").is_dir()
    assert made.is_dir()
    remove_temporary_folder(made)
    assert not made.exists()


@pytest.fixture
def offered(session, tmp_path, model, monkeypatch):
    """Offer the result of a killed session: its folder, this session, the answer."""
    monkeypatch.setattr(
        "napari_semsr.widgets.base.places.find_abandoned_results",
        lambda _: find_abandoned_results(tmp_path),
    )
    dead, left = session("mosaic")
    dead.kill()
    dead.wait(LIMIT_S)
    now, asked = get_session(model), []
    now.ask_about_abandoned = lambda *question: asked.append(question)
    now._offer_abandoned_results(None)  # noqa: SLF001 - by the first panel in a window
    ((_, names, answer),) = asked
    assert names == ["mosaic"]
    return left, now, answer


@pytest.mark.usefixtures("qapp")
def test_results_of_a_killed_session_are_opened_unsaved(offered, model, qtbot):
    left, now, answer = offered
    answer("Open")
    qtbot.waitUntil(lambda: not now.runner.is_busy, timeout=LIMIT_MS)
    (layer,) = model.layers
    assert layer.name == "mosaic"
    np.testing.assert_array_equal(layer.data, np.arange(64.0).reshape(8, 8))
    assert is_unsaved(layer)
    assert now.list_unsaved_names() == ["mosaic"]
    assert not left.exists()
    assert (get_cache_folder() / left.name / "mosaic.ome.zarr").is_dir()


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("word", ["Later", "Discard"])
def test_results_of_a_killed_session_are_kept_until_discarded(offered, model, word):
    left, _, answer = offered
    answer(word)
    assert left.exists() == (word == "Later")
    assert not model.layers


@pytest.mark.parametrize("days", [1, 40])
@pytest.mark.parametrize("mark", [None, "of another machine", "damaged"])
def test_folders_of_other_machines_are_swept_when_they_are_old(tmp_path, mark, days):
    folder = tmp_path / "napari-semsr-other"
    folder.mkdir()
    said = {
        "of another machine": json.dumps({"machine": "elsewhere", "process": 1}),
        "damaged": "{",
    }
    if mark is not None:
        (folder / "session.json").write_text(said[mark])
    age(folder, days)
    assert not find_abandoned_results(tmp_path)
    assert folder.exists() == (days == 1)


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "napari-semsr-file").write_text("kept")
    (tmp_path / "another").mkdir()
    (tmp_path / "napari-semsr-link").symlink_to(tmp_path / "another")
    age(tmp_path / "another", 400)
    assert not find_abandoned_results(tmp_path)
    assert {"napari-semsr-file", "another", "napari-semsr-link"} <= {
        item.name for item in tmp_path.iterdir()
    }
