"""How far an enhanced image may be off: learnt, mapped, and what is refused."""

import json

import numpy as np
import pytest
import tifffile

import napari_semsr as semsr
from napari_semsr.core import Micrograph, SemsrError
from napari_semsr.models import (
    ModelCard,
    build,
    file_digest,
    load_trust,
    save_model,
    trust_path,
)
from napari_semsr.simulation import SsumPairOptions, ssum_validation
from tests.tiny_models import write_trusted_model

NETWORK = {"width": 16, "fine_blocks": 1, "dilations": [1]}
FEW = {"fields": 20, "calibration": 20, "samples": 100}


@pytest.fixture(scope="module")
def untaught(tmp_path_factory):
    """A small network that learnt nothing, and of which nothing was learnt."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    network = build("two-scale", NETWORK)
    for weights in network.parameters():  # else it gives back what it is given
        torch.nn.init.normal_(weights, 0, 0.03)
    data = {"sources": {"superlens": 1.0}, "superlens": {"gaussian": 1.0}}
    recipe = {"name": "small", "data": data}
    card = ModelCard(
        name="small",
        architecture="two-scale",
        options=NETWORK,
        stride=4,
        receptive_field=64,
        pixel_size_nm=(20, 20),
        training={"recipe": recipe},
    )
    save_model(path, network, card)
    return path


@pytest.fixture(scope="module")
def model(untaught, tmp_path_factory):
    """The same network, and what was learnt of its errors."""
    path = tmp_path_factory.mktemp("learnt") / untaught.name
    path.write_bytes(untaught.read_bytes())
    semsr.learn_trust(path, **FEW)
    return path


def field(number=0, side=256):
    options = SsumPairOptions(relief_nm=(40, 160), gaussian=1)
    (pair,) = ssum_validation(1, side, options=options, first=1000 + number)
    low = (pair.low * 200).astype(np.float32)
    return Micrograph(low, (20.0, 20.0), "field", origin=(500.0, 40.0)), pair


@pytest.mark.broad
def test_what_was_learnt_names_its_model(model):
    trust = load_trust(trust_path(model))
    assert trust.model == "small"
    assert trust.model_digest == file_digest(model)
    assert trust.share == 0.9
    assert len(trust.fields) == FEW["calibration"]
    assert trust.training["options"]["fields"] == FEW["fields"]


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:.*unlike the fields")
def test_bound_lies_on_the_result_and_holds_on_other_fields(model, tmp_path):
    below = []
    for number in range(6):
        image, pair = field(number)
        made = semsr.enhance(
            image, tmp_path / "made.ome.zarr", model=model, overwrite=True
        )
        after = semsr.read(made.output)
        found = semsr.trust(image, after, model=model)
        bound = found.map.array() / 100
        low, high = found.range
        error = np.abs((after.array() - low) / (high - low) - pair.high)
        below.append(float((error < bound)[30:-30, 30:-30].mean()))
    # learnt and calibrated on twenty fields each: the bound is wide, never far too low
    assert 0.8 < np.mean(below) <= 1.0
    assert found.map.shape == image.shape
    assert found.map.origin == after.origin
    assert found.share == 0.9
    assert found.kinds["bound"]["p95"] >= found.mean > 0
    assert found.kinds["spread"]["mean"] > 0


@pytest.mark.broad
def test_map_is_written_with_its_history_and_made_again(model, tmp_path):
    image, _ = field()
    semsr.write(image, tmp_path / "field.ome.tif")
    semsr.enhance(tmp_path / "field.ome.tif", tmp_path / "made.ome.zarr", model=model)
    args = tmp_path / "field.ome.tif", tmp_path / "made.ome.zarr"
    found = semsr.trust(*args, tmp_path / "map.ome.zarr", model=model, unit="grey")
    read = semsr.read(tmp_path / "map.ome.zarr")
    assert found.map is None
    assert read.provenance.job == "trust"
    assert read.provenance.model_name == "small"
    assert [item.role for item in read.provenance.inputs] == ["image", "enhanced"]
    assert [item.role for item in read.provenance.guides] == ["model", "trust"]
    held = semsr.trust(*args, model=model)
    low, high = held.range
    np.testing.assert_allclose(
        read.array(), held.map.array() / 100 * (high - low), rtol=1e-5
    )
    assert semsr.replay(tmp_path / "map.ome.zarr").identical


@pytest.mark.broad
def test_image_is_read_as_it_was_to_be_enhanced(model, tmp_path):
    image, _ = field()
    path = tmp_path / "plain.tif"
    semsr.write(image.replace(pixel_size_nm=None, origin=(0.0, 0.0)), path)
    made = semsr.enhance(path, tmp_path / "m.ome.zarr", model=model, pixel_size_nm=20)
    after = semsr.read(made.output)
    found = semsr.trust(path, after, model=model)
    told = semsr.trust(path, after, model=model, pixel_size_nm=20)
    lost = after.replace(pixel_size_nm=None)
    bare = semsr.trust(path, lost, model=model, pixel_size_nm=20)
    assert found.pixel_size_nm == told.pixel_size_nm == bare.pixel_size_nm == (20, 20)
    assert found.mean == told.mean == bare.mean
    unknown = after.replace(provenance=None)
    with pytest.raises(SemsrError, match="alone has none"):
        semsr.trust(path, unknown, model=model)


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:.*unlike the fields")
def test_missing_pixels_stay_missing(model, tmp_path):
    image, _ = field()
    data = image.array()
    data[40:60, 50:70] = np.nan
    made = semsr.enhance(image.replace(data=data), tmp_path / "m.ome.zarr", model=model)
    found = semsr.trust(image.replace(data=data), made.output, model=model)
    values = found.map.array()
    assert np.isnan(values[42:58, 52:68]).all()
    assert np.isfinite(values[80:, 80:]).all()


@pytest.mark.broad
def test_field_of_another_kind_is_called_so(model, tmp_path, rng):
    noise = Micrograph(rng.normal(100, 20, (256, 256)), (20.0, 20.0), "noise")
    made = semsr.enhance(noise, tmp_path / "made.ome.zarr", model=model)
    with pytest.warns(UserWarning, match="noise is unlike the fields"):
        found = semsr.trust(noise, made.output, model=model)
    assert found.familiar is False
    assert found.unfamiliar_fraction == 1


def test_spread_needs_nothing_that_was_learnt(untaught, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(untaught.read_bytes())
    image, _ = field()
    made = semsr.enhance(image, tmp_path / "made.ome.zarr", model=other)
    with pytest.raises(SemsrError, match="Nothing was learnt of the errors of small"):
        semsr.trust(image, made.output, model=other)
    found = semsr.trust(image, made.output, model=other, show="spread")
    assert found.shown == "spread"
    assert found.share is None
    assert found.familiar is None
    assert found.kinds["bound"] is None
    assert found.map.array().max() > 0


def enhanced_by(tmp_path, *, side=96, **options):
    """A field in a file, and what a trusted model made of it."""
    model = options.pop("model", None) or write_trusted_model(tmp_path)
    image, _ = field(side=side)
    semsr.write(image, tmp_path / "field.ome.tif")
    made = tmp_path / "made.ome.tif"
    semsr.enhance(tmp_path / "field.ome.tif", made, model=model, **options)
    return tmp_path / "field.ome.tif", made, model


@pytest.mark.parametrize("converted", [False, True])
def test_enhancement_that_the_bound_was_not_calibrated_on_is_doubtful(
    tmp_path, converted
):
    field, made, _ = enhanced_by(tmp_path, model="sem-restore", strength=0, tile=64)
    if converted:
        semsr.convert(made, tmp_path / "copy.ome.tif")
        made = tmp_path / "copy.ome.tif"
    with pytest.warns(UserWarning, match="strength 0"):
        found = semsr.trust(field, made)
    assert found.familiar is False
    assert found.judged == "doubtful"
    assert "strength 0" in found.verdict


def test_field_that_could_not_be_compared_is_doubtful(tmp_path):
    field, made, model = enhanced_by(tmp_path, side=60)
    with pytest.warns(UserWarning, match="no block of the field could be compared"):
        found = semsr.trust(field, made, model=model)
    assert found.familiar is None
    assert found.judged == "doubtful"


def test_stretched_grey_values_are_refused(tmp_path):
    field, made, model = enhanced_by(tmp_path)
    semsr.convert(made, tmp_path / "made.png")
    with pytest.raises(SemsrError, match="stretched to uint8 when it was written"):
        semsr.trust(field, tmp_path / "made.png", model=model)
    semsr.enhance(field, tmp_path / "whole.png", model=model, dtype="uint8")
    semsr.trust(field, tmp_path / "whole.png", model=model)


def test_plane_is_that_of_both_stacks(tmp_path):
    model, (image, _) = write_trusted_model(tmp_path), field(side=96)
    planes = np.stack([image.array(), image.array()[::-1]])
    tifffile.imwrite(tmp_path / "stack.tif", planes, metadata={"axes": "ZYX"})
    paths = tmp_path / "stack.tif", tmp_path / "made.ome.tif"
    semsr.enhance(*paths, model=model, pixel_size_nm=20)
    found = semsr.trust(*paths, model=model, plane=1)
    assert found.pixel_size_nm == (20, 20)
    one = semsr.enhance(image.replace(data=planes[1]), model=model)
    assert found.mean == semsr.trust(image.replace(data=planes[1]), one).mean


def test_image_that_was_not_enhanced_is_told(tmp_path, recwarn):
    field, made, model = enhanced_by(tmp_path)
    image = semsr.read(field)
    semsr.convert(field, tmp_path / "copy.tif")
    part = {"box": (0, 0, 80, 80)}
    cut = semsr.crop(image, **part), semsr.crop(semsr.read(made), **part)
    for pair in ((field, made), (image, made), (tmp_path / "copy.tif", made), cut):
        semsr.trust(*pair, model=model)
    assert not recwarn.list
    other = tmp_path / "other.tif"
    semsr.write(Micrograph(image.array()[::-1], (20, 20), "other"), other)
    with pytest.warns(UserWarning, match="other is not the image that"):
        semsr.trust(other, made, model=model)


@pytest.mark.broad
def test_what_does_not_fit_is_refused(model, tmp_path):
    image, _ = field()
    made = semsr.enhance(image, tmp_path / "made.ome.zarr", model=model)
    after = semsr.read(made.output)
    with pytest.raises(SemsrError, match="must tell its model, and field tells none"):
        semsr.trust(image, image)
    with pytest.raises(SemsrError, match="must be what small makes of the image"):
        semsr.trust(image, after.replace(data=after.array()[:-8]), model=model)
    with pytest.raises(SemsrError, match=r"must end in \.json"):
        semsr.learn_trust(model, tmp_path / "a.txt", **FEW)
    with pytest.raises(SemsrError, match="exists already"):
        semsr.learn_trust(model, **FEW)


def test_model_that_does_not_tell_its_pairs_is_refused(untaught, tmp_path):
    from napari_semsr.models import load_model

    loaded = load_model(untaught)
    path = tmp_path / "mute.safetensors"
    save_model(path, loaded.module, loaded.card.model_copy(update={"training": {}}))
    with pytest.raises(SemsrError, match="must tell how its pairs were made"):
        semsr.learn_trust(path, **FEW)
    assert not trust_path(path).parent.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"share": 2},
        {"factor": -1},
        {"fields": [[1.0, 2.0], [1.0]] * 3},
        {"kind": "something"},
        {"weights": ["a"]},
        None,
    ],
)
def test_damaged_file_is_refused_in_a_sentence(tmp_path, change):
    path = tmp_path / "bad.json"
    told = json.loads(trust_path(write_trusted_model(tmp_path)).read_text())
    path.write_text("{" if change is None else json.dumps({**told, **change}))
    with pytest.raises(SemsrError, match=r"bad\.json is no trust file"):
        load_trust(path)
