"""Work that is killed at any moment, and done again, ends as work that never was."""

import csv
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from napari_semsr.io import read
from tests import children
from tests.hostile.commands import LINES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]
TIMES = 10
ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("first.tif", "second.tif", "truth.tif")
WORK = {
    "restore": ("restore", *IMAGES, "-o", "out", "--psf", "1px"),
    "train": ("train", *LINES["train"], "--steps", "60"),
}


def content(path: Path) -> object:
    """What a file holds: weights, pixels, or a table without its times."""
    if path.suffix == ".safetensors":
        return path.read_bytes()
    if path.suffix == ".tif":
        return read(path).array().tobytes()
    if path.suffix == ".csv":
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        return [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    return None


def made_by(place: Path) -> dict[str, object]:
    """All that lies in the output, without what tells of time."""
    files = [path for path in place.glob("out/**/*") if path.is_file()]
    return {str(p): content(p) for p in files if p.suffix != ".ckpt"}


@pytest.mark.parametrize("verb", WORK)
def test_killed_work_that_is_done_again_is_the_same(verb, place):
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    how = {
        "cwd": place,
        "env": {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    }
    words = [sys.executable, "-m", "napari_semsr", *WORK[verb], "--quiet"]
    begun = time.monotonic()
    done = children.run(words, **how)
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    undisturbed = made_by(place)
    assert undisturbed
    rng = random.Random(len(verb))  # noqa: S311
    for _ in range(TIMES):
        shutil.rmtree(place / "out", ignore_errors=True)
        with children.started(words, **how) as process:
            time.sleep(took * rng.uniform(0.3, 1))
            process.kill()
            process.wait(children.LIMIT_S)
        more = ("--resume",)
        if verb == "train" and not (place / "out" / "last.ckpt").exists():
            more = ("--overwrite",)
        done = children.run([*words, *more], **how)
        assert done.returncode == 0, done.stderr
        assert made_by(place) == undisturbed
        assert not list(place.glob(".*")), "something hidden is left"
