"""Models for other programs, and theirs here."""

import hashlib
import io
import json
import pickle
import socket
import warnings
import zipfile

import numpy as np
import pytest
import torch
import yaml

import napari_semsr as semsr
from napari_semsr.cli import main
from napari_semsr.core import CheckpointError, Micrograph
from napari_semsr.models import CARD_KEY, load_model, read_card
from tests.refusals import refused
from tests.tiny_models import write_tiny_model

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")


pytestmark = pytest.mark.usefixtures("own_shelf")


@pytest.fixture
def field(rng):
    data = rng.normal(100, 20, (83, 70)).cumsum(1).astype(np.float32)
    return Micrograph(data, (10.0, 10.0), "field")


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_model(
        tmp_path,
        name="tiny-one",
        pixel_size_nm=(10.0, 10.0),
        input_percentiles=(1.0, 99.0),
        description="Made for tests.",
        limits="All.",
        training={"steps": 0},
    )


def _enhanced(field, model, **options):
    return np.asarray(semsr.enhance(field, model=str(model), **options).data)


def test_our_own_onnx_comes_back_as_the_same_model(tmp_path, own_shelf, tiny, field):
    out = tmp_path / "tiny.onnx"
    semsr.export_model(tiny, out)
    found = semsr.import_model(out)
    card, before = read_card(own_shelf / "tiny-one.safetensors"), read_card(tiny)
    assert found.card["architecture"] == "onnx"
    kept = ("input_percentiles", "pixel_size_nm", "stride", "grey", "limits", "licence")
    assert all(getattr(card, name) == getattr(before, name) for name in kept)
    expected = _enhanced(field, tiny, precision="fp32")
    close = {"rtol": 0, "atol": 1e-5 * np.ptp(expected)}
    for tile in (None, 32):
        given = _enhanced(field, "tiny-one", tile=tile)
        np.testing.assert_allclose(given, expected, **close)


def test_onnx_of_another_program_is_told_what_it_needs(tmp_path, own_shelf, field):
    out = tmp_path / "some net.onnx"
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    how = {"input_names": ["x"], "dynamic_axes": {"x": {2: "h", 3: "w"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (torch.rand(1, 1, 16, 16),), out, dynamo=False, **how)

    def applied(data):
        with torch.no_grad():
            return layer(torch.from_numpy(data[None, None]))[0, 0].numpy()

    made = semsr.import_model(out, pixel_size_nm=10, levels=(0, 4), grey="unit")
    assert (made.card["name"], made.card["pixel_size_nm"]) == ("some-net", [10, 10])
    found = _enhanced(field, "some-net", tile=32)
    np.testing.assert_allclose(found, applied(field.data / 4), rtol=1e-4, atol=1e-4)
    semsr.import_model(out, name="other", scaling="deviation")
    mean, spread = field.data.mean(dtype=float), field.data.std(dtype=float)
    expected = applied(((field.data - mean) / spread).astype(np.float32))
    found = (_enhanced(field, "other", tile=32) - mean) / spread
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    with refused(CheckpointError, "name-taken"):
        semsr.import_model(out, name="sem-restore")


@pytest.mark.broad
def test_a_network_that_looks_at_whole_fields_goes_out_for_one_field_alone(
    tmp_path, own_shelf, field
):
    out = tmp_path / "told.onnx"
    with refused(CheckpointError, "export-unsupported"):
        semsr.export_model("sem-restore", out)
    assert not out.exists()
    fine = field.replace(pixel_size_nm=(20.0, 20.0))
    made = semsr.export_model("sem-restore", out, field=fine)
    assert "nor removes haze" in made.card["description"]
    semsr.import_model(out)
    told = {"precision": "fp32"}
    expected = _enhanced(fine, "sem-restore", haze=False, **told)
    found = _enhanced(fine, "sem-restore-told", **told)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))
    with refused(CheckpointError, "option-without-effect"):
        semsr.export_model("ssum-sem", tmp_path / "b.onnx", field=fine)


# Packages of bioimage.io.


@pytest.fixture
def package(tmp_path, tiny):
    out = tmp_path / "tiny.zip"
    semsr.export_model(tiny, out, authors=["A. Tester"])
    return out


def _check_as_bioimageio(package):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = pytest.importorskip("bioimageio.spec")
        summary = spec.load_description(package).validation_summary
    assert summary.status in ("valid-format", "passed"), summary.errors
    assert not summary.errors


def _run_as_described(package):
    """Run a package on its test, which torch made; give description and weights."""
    with zipfile.ZipFile(package) as held:
        said = yaml.safe_load(held.read("rdf.yaml"))
        read = {
            name: np.load(io.BytesIO(held.read(f"test_{name}.npy")))
            for name in ("input", "output")
        }
        weights = held.read("weights.onnx")
    step = said["inputs"][0]["preprocessing"][0]
    assert step["id"] == "scale_range"
    low, high = np.percentile(
        read["input"], [step["kwargs"][f"{end}_percentile"] for end in ("min", "max")]
    )
    scaled = (read["input"] - low) / (high - low + step["kwargs"]["eps"])
    session = runtime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": scaled.astype(np.float32)})
    close = {"rtol": 0, "atol": 1e-5 * np.ptp(read["output"])}
    np.testing.assert_allclose(found, read["output"], **close)
    return said, weights


def test_a_package_brings_the_model_as_it_was(tmp_path, own_shelf, package, tiny):
    with zipfile.ZipFile(package) as held:
        (entry,) = yaml.safe_load(held.read("rdf.yaml"))["attachments"]
        own = held.read(entry["source"])
        held.extract(entry["source"], tmp_path / "out")
    assert own == tiny.read_bytes()
    assert entry["sha256"] == hashlib.sha256(own).hexdigest()
    semsr.import_model(tmp_path / "out" / entry["source"])
    assert (own_shelf / "tiny-one.safetensors").read_bytes() == own


@pytest.mark.broad
def test_a_package_passes_the_checker_and_says_what_the_network_takes(package):
    _check_as_bioimageio(package)
    said, weights = _run_as_described(package)
    axes = {axis.get("id"): axis for axis in said["inputs"][0]["axes"]}
    assert (axes["y"]["unit"], axes["y"]["scale"]) == ("nanometer", 10.0)
    kept = {p.key: p.value for p in onnx.load_from_string(weights).metadata_props}
    assert json.loads(kept[CARD_KEY])["name"] == "tiny-one"


def test_a_package_is_read_and_written_without_a_network(
    tmp_path, own_shelf, package, monkeypatch
):
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("reached for a network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    changes = {
        "covers": ["https://a.b/cover.png"],
        "documentation": "https://a.b/README.md",
        "authors": [{"name": "A", "github_user": "nobody-knows"}],
        "git_repo": "https://a.b/c",
        "inputs__0__test_tensor": {"source": "https://a.b/c.npy"},
        "weights__onnx__sha256": None,
    }
    made = semsr.import_model(_change_surface(package, tmp_path, **changes))
    semsr.export_model(made.path, tmp_path / "again.zip", authors=["A"])


def _change_surface(package, tmp_path, **changes):
    """Write a package again, with other entries in its description."""
    out = tmp_path / "changed.zip"
    with zipfile.ZipFile(package) as held, zipfile.ZipFile(out, "w") as made:
        said = yaml.safe_load(held.read("rdf.yaml"))
        for path, value in changes.items():
            *way, last = path.split("__")
            place = said
            for key in way:
                place = place[int(key) if key.isdigit() else key]
            place[last] = value
        model = onnx.load_from_string(held.read("weights.onnx"))
        del model.metadata_props[:]  # as of another program
        made.writestr("rdf.yaml", yaml.safe_dump(said))
        made.writestr("weights.onnx", model.SerializeToString())
    return out


def _steps(name, **kwargs):
    return [
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        {"id": name, "kwargs": kwargs},
    ]


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("steps", "scaling", "key", "value"),
    [
        ([], "levels", "input_levels", [0, 1]),
        (
            _steps("scale_range", min_percentile=2, max_percentile=99.8),
            *("percentiles", "input_percentiles", [2, 99.8]),
        ),
        (_steps("zero_mean_unit_variance"), "deviation", "grey", "unit"),
        (
            _steps("fixed_zero_mean_unit_variance", mean=100, std=50),
            *("levels", "input_levels", [100, 150]),
        ),
        (_steps("scale_linear", gain=1 / 255), "levels", "input_levels", [0, 255]),
    ],
)
def test_scaling_of_a_package_becomes_ours(
    tmp_path, own_shelf, package, steps, scaling, key, value
):
    changes = {
        "inputs__0__preprocessing": steps,
        "weights__onnx__sha256": None,
        "name": "Foreign net",
    }
    made = semsr.import_model(_change_surface(package, tmp_path, **changes))
    assert made.card["name"] == "Foreign-net"
    assert made.card["pixel_size_nm"] == [10, 10]
    assert made.card["input_scaling"] == scaling
    assert made.card[key] == (value if key == "grey" else pytest.approx(value))


REFUSED = {
    "weights": ({"weights": {"pytorch_state_dict": {}}}, "format-unsupported"),
    "elsewhere": ({"weights__onnx__source": "https://a.b/w"}, "weights-elsewhere"),
    "outside": ({"weights__onnx__source": "../w.onnx"}, "weights-elsewhere"),
    "digest": ({"weights__onnx__sha256": "0" * 64}, "content-changed"),
    "old": ({"format_version": "0.4.10"}, "other-version"),
    "kind": ({"type": "dataset"}, "format-unknown"),
    "steps": (
        {"inputs__0__preprocessing": _steps("binarize", threshold=0.5)},
        "model-unsuitable",
    ),
    "axes": ({"inputs__0__axes__1__channel_names": ["r", "g"]}, "model-unsuitable"),
    "damage": ({"inputs__0__axes": 3}, "model-damaged"),
    "licence": ({"license": "my own"}, "licence-unknown"),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", REFUSED)
def test_a_package_is_refused_in_one_sentence(tmp_path, own_shelf, package, name):
    changes, code = REFUSED[name]
    changes = {"weights__onnx__sha256": None, **changes}
    with refused(CheckpointError, code) as caught:
        semsr.import_model(_change_surface(package, tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert not own_shelf.exists()


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


ALIASES = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
ALIASES += [f"a{n + 1}: &a{n + 1} [{', '.join(9 * [f'*a{n}'])}]" for n in range(29)]
ALIASES += ["type: model", "format_version: *a29"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("\n".join(ALIASES), "unsafe-content"),  # 9**30 values
        (b"a: [b", "model-damaged"),
        (b"!!python/object/apply:os.abort []", "model-damaged"),
        (b"- 1", "format-unknown"),
        (b" " * (2**20 + 1), "file-too-large"),
    ],
)
def test_a_zip_that_is_no_package_is_refused(tmp_path, data, code):
    out = zipped(tmp_path / "p.zip", **{"rdf.yaml": data})
    with refused(CheckpointError, code):
        semsr.import_model(out)


# What runs code of others.


@pytest.mark.parametrize("name", ["a.pkl", "a.ckpt", "a.h5", "a.pb", "a.pth", "a.pt"])
def test_files_that_run_code_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
    with refused(CheckpointError, "unsafe-content"):
        semsr.import_model(tmp_path / name)


def test_the_command_exports_and_imports(tmp_path, own_shelf, tiny, capsys):
    out = tmp_path / "tiny.onnx"
    assert main(["models", "export", str(tiny), "-o", str(out)]) == 0
    line = ["models", "import", str(out), "--name", "by-hand", "--levels", "0", "255"]
    assert main(line) == 0
    assert "input_levels" in capsys.readouterr().out
    assert load_model(own_shelf / "by-hand.safetensors").card.input_levels == (0, 255)
    assert main(["models", "list", "--levels", "0", "1"]) == 2
    assert "is an option of `models import`" in capsys.readouterr().err
