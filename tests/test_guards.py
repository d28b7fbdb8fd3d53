"""The guards of `conftest.py` catch what they are there for, and nothing else."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests import children

pytestmark = pytest.mark.broad

ROOT = Path(__file__).resolve().parents[1]

CASES = """
import os
import signal
import pytest
from qtpy.QtWidgets import QWidget
from tests import conftest
from tests.children import run_python
conftest.LEAVING_S = 0.1
KEPT = []

def test_leaves_a_file_open(tmp_path):
    (tmp_path / "image.bin").write_bytes(b"1")
    KEPT.append((tmp_path / "image.bin").open("rb"))

def test_leaves_a_window(qtbot):
    KEPT.append(QWidget())
    KEPT[-1].show()

def test_child_hears_an_interrupt():
    said = run_python("import signal; print(signal.getsignal(2))")
    assert "default_int_handler" in said

def test_session_of_the_user_is_not_seen():
    assert not {"COLUMNS", "SEMSR_MODELS", "LOCAL_RANK"} & set(os.environ)
    assert os.environ["HOME"] != "/nowhere"

@pytest.mark.timeout(0.5)
def test_hangs():
    import time
    time.sleep(60)

@pytest.mark.gpu
def test_needs_a_gpu():
    import torch
    assert torch.cuda.is_available()
"""


DEAF = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
"""
SESSION = {"COLUMNS": "40", "HOME": "/nowhere", "SEMSR_MODELS": "x", "LOCAL_RANK": "1"}
UNCUT = {"CI": "true"}  # pytest then says the whole first line of a failure


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    """What pytest says of the cases, run with our fixtures in another process."""
    folder = tmp_path_factory.mktemp("guards")
    (folder / "test_cases.py").write_text(CASES)
    plugins = ["-p", "tests.conftest", "-p", "pytestqt.plugin", "-p", "pytest_timeout"]
    place = ["--rootdir", folder, "--basetemp", folder / "base"]
    done = children.run(
        [sys.executable, "-c", DEAF, *plugins, *place, "-rA", folder],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **UNCUT, **SESSION},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("leaves_a_file_open", "ERROR .*files left open"),
        ("leaves_a_window", "ERROR .*widgets left behind"),
        ("hangs", "FAILED .*Timeout"),
        ("child_hears_an_interrupt", "PASSED "),
        ("session_of_the_user_is_not_seen", "PASSED "),
    ],
)
def test_guard_has_its_outcome(report, case, outcome):
    kind, _, words = outcome.partition(" ")
    assert re.search(rf"{kind} \S*test_{case}\b{words}", report), report


def test_gpu_tests_run_or_say_why_not(report):
    import torch

    ran = re.search(r"PASSED \S*test_needs_a_gpu", report) is not None
    assert ran == torch.cuda.is_available()
    assert ran or "needs a CUDA device" in report
