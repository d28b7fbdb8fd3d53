"""Damaged files and lines of every kind: refused in a sentence, or taken.

``make soak`` gives each kind thousands, in a process of its own whose memory is bounded
and which ends where an input takes too long (``python -m tests.hostile``).
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import children
from tests.hostile.cases import CASES, is_verb, lacking, longest_of
from tests.hostile.play import play
from tests.hostile.watch import WATCH, Watched

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("png", "transform", "semsr-convert")  # one of each kind, in the quick tests


def skip_unless_installed(name: str) -> None:
    why = lacking(name)
    if why is not None:
        pytest.skip(why)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SMOKE else pytest.mark.broad)
        for name in CASES
    ],
)
def test_damage_is_refused_in_a_sentence_or_taken(name, tmp_path, monkeypatch):
    skip_unless_installed(name)
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    outcome = play(
        CASES[name],
        tmp_path,
        2 if is_verb(name) else 12,
        longest_s=longest_of(name),
    )
    assert not outcome.findings, outcome.findings[0]


@pytest.mark.slow
@pytest.mark.timeout(children.SLOW_LIMIT_S)
@pytest.mark.parametrize("name", CASES)
def test_much_damage_is_refused_in_bounded_memory(name):
    skip_unless_installed(name)
    count = 2000 if name.startswith("well-formed-") else 5000
    count = 500 if is_verb(name) else count
    words = [sys.executable, "-m", "tests.hostile", name, "--count", count]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = children.run(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=children.SLOW_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]


class Deed:
    """Does what no input may make its reader do."""

    name = "deed"

    def __init__(self, deed):
        self.deed = deed

    def prepare(self, folder):
        os.link(WATCH.bait / "raw.bin", folder / "twin")

    def attempt(self, whole, folder, rng):
        self.deed(WATCH.bait)


def listen(host):
    with socket.socket() as one:
        one.bind((host, 0))


def connect(_bait):
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))


DEEDS = {
    "a file beside the folder": lambda bait: (bait.parent / "new").touch(),
    "a file at home": lambda _: Path("~/new").expanduser().touch(),
    "a folder": lambda bait: (bait / "new").mkdir(),
    "a link": lambda bait: (bait / "new").symlink_to("x"),
    "another name": lambda bait: (bait / "raw.bin").rename("raw.bin"),
    "a file fewer": lambda bait: (bait / "raw.bin").unlink(),
    "another's bytes": lambda _: Path("twin").write_bytes(b"owned"),
    "what it may not read": lambda bait: (bait / "raw.bin").read_bytes(),
    "a connection": connect,
    "a name that is looked up": lambda _: socket.getaddrinfo("localhost", 9),
    "a port for all": lambda _: listen(""),
    "microscope control program": lambda _: subprocess.run(["/bin/true"], check=False),
}
HARMLESS = {
    "a file in its folder": lambda _: Path("made").touch(),
    "a folder fewer": lambda _: (Path("inner").mkdir(), Path("inner").rmdir()),
    "a port for this computer": lambda _: listen("127.0.0.1"),
}


@pytest.mark.broad
@pytest.mark.parametrize("deed", [*DEEDS, *HARMLESS])
def test_the_watch_sees_what_is_done_besides(deed, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    case = Watched(Deed({**DEEDS, **HARMLESS}[deed]))
    outcome = play(case, tmp_path, 1)
    found = [told for told in outcome.findings if "AssertionError" in told]
    assert bool(found) == (deed in DEEDS), outcome.findings
