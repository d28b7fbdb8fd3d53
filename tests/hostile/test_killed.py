"""Work that is killed at any moment, and done again, ends as work that never was."""

import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

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


def made_by(place: Path) -> dict[str, object]:
    """All that lies in the output; of models the bytes, since a table tells times."""
    return {
        str(path.relative_to(place)): path.suffix != ".safetensors" or path.read_bytes()
        for path in sorted(place.glob("out/**/*"))
        if path.is_file() and path.suffix != ".ckpt"
    }


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
