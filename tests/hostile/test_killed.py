"""Work that is killed at any moment, and done again, ends as work that never was."""

import csv
import io
import os
import random
import re
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
AGAIN: dict[str, tuple[str, ...]] = {}
# Also the digests: a kept file tells when it was made.
CLOCK = re.compile(
    r"\d{4}-\d\d-\d\d[T ][\d:.+Z]*|\d+(\.\d+)? (s|MB|MP/s|min)\b|sha256:\w+"
)


def made_by(place: Path) -> dict[str, object]:
    """All that lies in the output, without what tells of time."""
    found = {}
    for path in sorted([*place.glob("o*.html"), *place.glob("out/**/*")]):
        name, inner = str(path.relative_to(place)), path.name
        if not path.is_file() or inner.endswith(".ckpt"):
            continue
        if inner.endswith(".csv"):
            rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            found[name] = [
                {k: v for k, v in row.items() if "second" not in k} for row in rows
            ]
        elif inner.endswith(".html"):
            found[name] = CLOCK.sub("", path.read_text(encoding="utf-8"))
        elif inner.endswith(".safetensors"):
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


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
        for made in (*place.glob("o*.html"), place / "out"):
            shutil.rmtree(made, ignore_errors=True)
            made.unlink(missing_ok=True) if made.is_file() else None
        with children.started(words, **how) as process:
            time.sleep(took * rng.uniform(0.3, 1))
            process.kill()
            process.wait(children.LIMIT_S)
        more = AGAIN.get(verb, ("--resume",))
        if verb == "train" and not (place / "out" / "last.ckpt").exists():
            more = ("--overwrite",)
        done = children.run([*words, *more], **how)
        assert done.returncode == 0, done.stderr
        assert made_by(place) == undisturbed
        assert not list(place.glob(".*")), "something hidden is left"
