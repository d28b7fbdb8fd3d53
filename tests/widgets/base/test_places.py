"""Temporary folders: swept or offered when their session has died, and only then."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QMainWindow, QPushButton

from napari_semsr.core import Micrograph, run
from napari_semsr.io import write
from napari_semsr.widgets.base import session
from napari_semsr.widgets.base.places import (
    create_temporary_folder,
    find_abandoned_results,
    remove_temporary_folder,
)
from napari_semsr.widgets.base.results import get_cache_folder, is_unsaved
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from tests.children import LIMIT_MS, LIMIT_S

SESSION = """
import sys
from pathlib import Path
from napari_semsr.widgets.base.places import create_temporary_folder
print(create_temporary_folder(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Folders of a session that was killed and of one that goes on."""
    words = [sys.executable, "-c", SESSION, tmp_path_factory.mktemp("cache")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(words, **pipes) for _ in range(2)]
    folders = [Path(child.stdout.readline().strip()) for child in children]
    for folder in folders:
        image = Micrograph(np.arange(64.0).reshape(8, 8), None, "mosaic")
        write(image, folder / "mosaic.ome.zarr")
        (folder / "part.ome.zarr").mkdir()
    children[0].kill()
    children[0].wait(LIMIT_S)
    yield folders
    for child in children:
        child.kill()
        child.communicate(timeout=LIMIT_S)


def age(folder, days):
    then = time.time() - days * 86400
    for item in (*folder.iterdir(), folder):
        os.utime(item, (then, then))


def test_only_a_killed_session_is_swept_or_offered(sessions):
    left, used = sessions
    swept = left.with_name("napari-semsr-empty")
    shutil.copytree(left, swept, ignore=lambda *_: ["mosaic.ome.zarr"])
    age(used, 400)
    mark = json.loads((left / "session.json").read_text())
    mark["process"] = os.getpid()  # a number that another process has now
    (left / "session.json").write_text(json.dumps(mark))
    made = create_temporary_folder(left.parent)
    assert run(find_abandoned_results(left.parent)) == {
        left: [left / "mosaic.ome.zarr"]
    }
    assert not swept.exists()
    assert (used / "mosaic.ome.zarr").is_dir()
    assert made.is_dir()
    remove_temporary_folder(made)
    assert not made.exists()


@pytest.fixture
def offered(sessions, tmp_path, model, monkeypatch, qtbot):
    """Offer the result of a killed session: its folder, this session, the answer."""
    left = shutil.copytree(sessions[0], tmp_path / sessions[0].name)
    threads, find = [], find_abandoned_results

    def find_here(_):
        threads.append(threading.current_thread())
        return (yield from find(tmp_path))

    path = "napari_semsr.widgets.base.places.find_abandoned_results"
    monkeypatch.setattr(path, find_here)
    now, asked, window = session.get_session(model), [], QMainWindow()
    qtbot.addWidget(window)
    now.ask_about_abandoned = lambda *question: asked.append(question)
    now.ask = lambda *_: "discard"  # as the window is closed
    window.setCentralWidget(OpenMosaicPanel(model))
    window.show()
    qtbot.waitUntil(lambda: bool(asked))
    assert threading.main_thread() not in threads
    ((_, names, answer),) = asked
    assert names == ["mosaic"]
    assert session.describe_unsaved_content([*"abcdefgh"]).endswith("e and 3 more.")
    return left, now, answer


@pytest.mark.parametrize("word", ["Open", "Discard"])
def test_results_of_a_killed_session_are_opened_unsaved_or_discarded(
    offered, model, qtbot, word
):
    left, now, answer = offered
    answer(QPushButton("Later"))
    assert left.exists()
    assert not model.layers
    answer(QPushButton(word))
    if word == "Discard":
        assert not left.exists()
        return
    qtbot.waitUntil(lambda: not now.runner.is_busy, timeout=LIMIT_MS)
    (layer,) = model.layers
    assert layer.name == "mosaic"
    np.testing.assert_array_equal(layer.data, np.arange(64.0).reshape(8, 8))
    assert is_unsaved(layer)
    assert now.list_unsaved_names() == ["mosaic"]
    assert not left.exists()
    assert (get_cache_folder() / left.name / "mosaic.ome.zarr").is_dir()


@pytest.mark.parametrize("days", [1, 40])
@pytest.mark.parametrize("mark", ['{"machine": "elsewhere", "process": 1}', "{"])
def test_folders_of_other_machines_are_swept_when_they_are_old(tmp_path, mark, days):
    folder = tmp_path / "napari-semsr-other"
    folder.mkdir()
    (folder / "session.json").write_text(mark)
    theirs = tmp_path / "another", tmp_path / "napari-semsr-link"
    theirs[0].mkdir()
    theirs[1].symlink_to(theirs[0])
    age(folder, days)
    age(theirs[0], 400)
    assert not run(find_abandoned_results(tmp_path))
    assert folder.exists() == (days == 1)
    assert all(path.exists() for path in theirs)
