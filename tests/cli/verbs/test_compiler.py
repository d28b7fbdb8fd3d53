"""Verbs that run networks leave torch's compiler, and triton, where they are.

Both bring an LLVM of their own, which clashes with that of Mesa: a process with an
OpenGL window ends with a segmentation fault. Training imports them by its optimiser.
"""

import json

import pytest

from tests.children import run_python

LINES = (
    ("models", "list"),
    ("figure", "first.tif", "truth.tif", "-o", "figure.png"),
    ("enhance", "first.tif", "-o", "a.tif", "--model", "ssum-sem", "--device", "cpu"),
)

RUN = """
import contextlib, io, json, os, sys
os.chdir(sys.argv[1])
from napari_semsr.cli import main

def check(what):
    names = "torch._dynamo", "torch._inductor", "triton"
    found = [name for name in names if name in sys.modules]
    assert not found, f"{what} imports {found}"

for line in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(line) == 0, line
    check(line)
"""


@pytest.mark.broad
def test_neither_other_verbs_nor_a_deep_network_import_a_compiler(images, monkeypatch):
    monkeypatch.setenv("SEMSR_MODELS", str(images / "shelf"))
    run_python(RUN, images, json.dumps(LINES))
