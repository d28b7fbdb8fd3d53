"""Temporary folders: swept when their session has died, and only then."""

import json
import os
import subprocess
import sys
import time

import pytest

from napari_semsr.widgets.base.places import create_temporary_folder
from tests.children import LIMIT_S

SESSION = """
import sys
from pathlib import Path
from napari_semsr.widgets.base.places import create_temporary_folder
folder = create_temporary_folder(Path(sys.argv[1]))
(folder / "result.ome.zarr").mkdir()
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def session(tmp_path):
    """Start a session in a process of its own; gives the process and its folder."""
    started = []

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        folder = tmp_path / child.stdout.readline().strip()
        assert (folder / "result.ome.zarr").is_dir()
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


@pytest.mark.broad
def test_a_killed_session_is_swept_and_a_living_one_is_not(session, tmp_path):
    (dead, left), (_, used) = session(), session()
    age(used, 400)
    dead.kill()
    dead.wait(LIMIT_S)
    made = create_temporary_folder(tmp_path)
    assert not left.exists()
    assert (used / "result.ome.zarr").is_dir()
    assert made.is_dir()
    assert made != used


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
    create_temporary_folder(tmp_path)
    assert folder.exists() == (days == 1)


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "napari-semsr-file").write_text("kept")
    (tmp_path / "another").mkdir()
    (tmp_path / "napari-semsr-link").symlink_to(tmp_path / "another")
    age(tmp_path / "another", 400)
    create_temporary_folder(tmp_path)
    assert {"napari-semsr-file", "another", "napari-semsr-link"} <= {
        item.name for item in tmp_path.iterdir()
    }
