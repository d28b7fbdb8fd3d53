"""Model files: what is written is read, and nothing else is accepted."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_semsr import models
from napari_semsr.core import CheckpointError, digest_path
from tests.refusals import refused

OPTIONS = {"width": 4, "fine_blocks": 1, "dilations": [1]}
KNOWN = {"name": "tiny", "architecture": "two-scale", "stride": 4}
CARD = models.ModelCard(**KNOWN, options=OPTIONS, receptive_field=24)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    network = models.build_network("two-scale", OPTIONS)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / "tiny.safetensors"
    models.save_model(path, network, CARD)
    return path


def test_save_then_load_gives_the_same_network(model_file: Path) -> None:
    loaded = models.load_model(model_file)
    again = models.load_model(str(model_file))
    image = torch.rand(1, 1, 16, 16)
    assert loaded.card == models.read_card(model_file) == CARD
    assert loaded.digest == again.digest == digest_path(model_file)
    assert torch.equal(loaded.module(image), again.module(image))
    assert not loaded.module.training
    assert not list(model_file.parent.glob(".*partial"))


def test_networks_beside_a_model_are_kept_apart(tmp_path):
    network, judge = models.build_network("two-scale", OPTIONS), torch.nn.Linear(3, 2)
    plain, whole = tmp_path / "plain.safetensors", tmp_path / "whole.safetensors"
    models.save_model(plain, network, CARD)
    models.save_model(whole, network, CARD, beside=judge.state_dict(), half=True)
    assert models.load_training_networks(plain) == {}
    held = models.load_training_networks(whole)
    assert torch.allclose(held["weight"], judge.weight, atol=1e-3)
    assert held["weight"].dtype == torch.float32
    both = (models.load_model(path).module.state_dict() for path in (plain, whole))
    for a, b in zip(*(state.values() for state in both), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_bundled_models_load_and_fit_the_limits() -> None:
    names = models.list_bundled_models()
    assert "sem-restore" in names
    assert sum(models.resolve_model_path(name).stat().st_size for name in names) <= 40e6
    for name in names:
        assert models.load_model(name).card.name == name
    with refused(CheckpointError, "model-unknown"):
        models.load_model("no-such")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "model-damaged"),
        (b"\x80\x04pickle of something", "model-damaged"),
        (struct.pack("<Q", 1 << 60) + b"{}", "model-damaged"),
        (struct.pack("<Q", 4) + b"nope", "model-damaged"),
        (struct.pack("<Q", 2) + b"[]", "model-damaged"),
        (struct.pack("<Q", 2) + b"{}", "card-missing"),
        ({"stride": 0}, "card-invalid"),
    ],
    ids=["empty", "pickle", "huge-header", "no-json", "list", "no-card", "bad-card"],
)
def test_foreign_files_are_refused(tmp_path, content, code):
    path = tmp_path / "bad.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        card = json.dumps(CARD.model_dump(mode="json") | content)
        save_file({"w": torch.zeros(1)}, path, metadata={"card": card})
    stated = " stride: " if code == "card-invalid" else None
    with refused(CheckpointError, code, match=stated):
        models.load_model(path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"options": {**OPTIONS, "width": 8}}, "weights-mismatch"),
        ({"architecture": "x"}, "architecture-unknown"),
        ({"options": {**OPTIONS, "depth": 3}}, "unknown-option"),
        ({"options": {**OPTIONS, "width": "wide"}}, "architecture-invalid"),
    ],
)
def test_cards_that_disagree_with_the_weights_are_refused(tmp_path, change, code):
    path, network = (
        tmp_path / "odd.safetensors",
        models.build_network("two-scale", OPTIONS),
    )
    models.save_model(path, network, CARD.model_copy(update=change))
    with refused(CheckpointError, code):
        models.load_model(path)


def test_file_that_is_cut_short_says_so_before_it_is_loaded(model_file: Path) -> None:
    whole = model_file.read_bytes()
    model_file.write_bytes(whole[:-8])
    for read in (models.read_card, models.load_model):
        with refused(CheckpointError, "file-truncated"):
            read(model_file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model_file, value):
    network = models.load_model(model_file).module
    torch.nn.init.constant_(next(network.parameters()), value)
    models.save_model(model_file, network, CARD)
    with refused(CheckpointError, "weights-not-finite"):
        models.load_model(model_file)


@pytest.mark.parametrize("percentiles", [(90, 10), (-1, 99)])
def test_card_with_percentiles_out_of_order_is_refused(percentiles):
    told = CARD.model_dump() | {"input_percentiles": percentiles}
    with pytest.raises(ValueError, match="percentile"):
        models.ModelCard.model_validate(told)


HUGE = {"width": [10**9, 10**400, [4], -4], "fine_blocks": [10**9]}
HUGE |= {"dilations": [[1] * 10**5, [10**9], 5]}


@pytest.mark.parametrize("name", HUGE)
def test_card_asks_for_no_more_than_its_file_holds(model_file, name):
    network = models.load_model(model_file).module
    for value in HUGE[name]:
        asked = CARD.model_copy(update={"options": {**OPTIONS, name: value}})
        models.save_model(model_file, network, asked)
        with pytest.raises(CheckpointError) as caught:
            models.load_model(model_file)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "row",
    [
        *({"data_offsets": 5}, {"data_offsets": [0, 10**15]}),
        *({"shape": [10**9, 10**9]}, {"shape": [-1]}, {"dtype": "F99"}),
    ],
    ids=str,
)
def test_file_that_lies_about_its_shapes_is_refused(model_file, row):
    data = model_file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name] |= row
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    model_file.write_bytes(struct.pack("<Q", len(told)) + told + data[8 + length :])
    with pytest.raises(CheckpointError):
        models.load_model(model_file)
