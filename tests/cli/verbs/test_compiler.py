"""Verbs that run networks leave torch's compiler, and triton, where they are.

Both bring an LLVM of their own, which clashes with that of Mesa: a process with an
OpenGL window ends with a segmentation fault. Training imports them by its optimiser.
"""

import json

import pytest
import torch
import yaml

from napari_semsr.models import (
    ModelCard,
    build_network,
    list_bundled_models,
    save_model,
)
from tests.children import run_python

SMALL = {
    "norms": ("resnet", {"width": 4, "blocks": 1, "norm": "instance"}),
    "correction": ("correction", {"network": "srcnn", "options": {"widths": (4, 4)}}),
    "graph": ("two-scale", {"width": 4, "fine_blocks": 1, "dilations": [1]}),
}
CPU = ("--device", "cpu")
KNOWN = ("--landmarks", "landmarks.csv", "--landmarks-only")
WITHOUT_NETWORK = (
    ("models", "list"),
    ("info", "first.tif"),
    ("figure", "first.tif", "truth.tif", "-o", "figure.png"),
)
OF_MODEL = (
    ("models", "info", "{}"),
    ("enhance", "first.tif", "-o", "made.ome.zarr", "--model", "{}", *CPU),
    ("enhance", "first.tif", "-o", "tiles.tif", "--model", "{}", "--tile", "32", *CPU),
    ("replay", "tiles.tif"),
    ("figure", "first.tif", "tiles.tif", "-o", "figure.png"),
    ("models", "export", "{}", "-o", "copy.safetensors"),
)
FULL = ("--memory-gb", "0.000001", "--tile", "32", *CPU)
OF_NORMS = (
    ("enhance", "first.tif", "-o", "a.tif", "--model", "{}", "--norm=whole", *CPU),
    ("enhance", "first.tif", "-o", "b.tif", "--model", "{}", "--norm=sampled", *FULL),
)
TO_GRAPH = (
    ("models", "export", "{}", "-o", "other.onnx"),
    ("models", "import", "other.onnx", "--name", "other"),
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
LAZY = """
import numpy as np
from napari_semsr.core import Box
from napari_semsr.inference import create_enhanced_array, prepare_preview
from napari_semsr.inference import EnhanceOptions
from napari_semsr.io import read
from napari_semsr.io.napari_hooks import get_reader
from napari_semsr.models import find_model, load_model

image, loaded = read("first.tif"), load_model(find_model(sys.argv[3]))
made = create_enhanced_array(image, loaded, EnhanceOptions(device="cpu", tile=32))
getattr(made, "data", made).compute(scheduler="synchronous")
check(create_enhanced_array)
prepare_preview(image, loaded, EnhanceOptions(device="cpu")).enhance(Box(8, 40, 8, 40))
check("a preview")
for data, *_ in get_reader("made.ome.zarr")("made.ome.zarr"):
    np.asarray(data[0] if isinstance(data, list) else data)
check("napari's reader")
"""


def _run(images, monkeypatch, lines, code=RUN, *words):
    monkeypatch.setenv("SEMSR_MODELS", str(images / "shelf"))
    run_python(code, images, json.dumps(lines), *words)


def _write_small(name, folder):
    """Write a small random model."""
    architecture, options = SMALL[name]
    torch.manual_seed(0)
    network = build_network(architecture, options).eval()
    known = {"options": options, "stride": network.stride, "receptive_field": 0}
    path = folder / f"{name}.safetensors"
    save_model(path, network, ModelCard(name=name, architecture=architecture, **known))
    return str(path)


def test_neither_other_verbs_nor_a_deep_network_import_a_compiler(images, monkeypatch):
    line = ("enhance", "first.tif", "-o", "a.tif", "--model", "ssum-sem", *CPU)
    _run(images, monkeypatch, [*WITHOUT_NETWORK, line])


@pytest.mark.broad
@pytest.mark.parametrize("name", ["norms", "graph"])
def test_no_verb_of_a_network_imports_a_compiler(name, images, monkeypatch):
    model, lines = _write_small(name, images), []
    if name == "graph":
        pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
        pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
        lines = [[word.format(model) for word in line] for line in TO_GRAPH]
        model = "other"
    step = {"enhance": {"model": model, "device": "cpu"}}
    plan = {"inputs": "first.tif", "output": "all", "steps": [step]}
    (images / "network.yaml").write_text(yaml.safe_dump(plan))
    if name == "norms":  # what other models import, their architectures do
        lines = [
            ("enhance", "first.tif", "-o", f"{at}.tif", "--model", other, *CPU)
            for at, other in enumerate(
                [*list_bundled_models(), _write_small("correction", images)]
            )
        ]
    lines += [
        [word.format(model) for word in line]
        for line in (*OF_MODEL, *(OF_NORMS if name == "norms" else ()))
    ]
    _run(images, monkeypatch, lines, RUN + LAZY, model)
