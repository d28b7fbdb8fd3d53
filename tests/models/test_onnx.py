"""Networks out as ONNX and in again, and graphs that must not be run."""

import numpy as np
import pytest
import torch

from napari_semsr import models
from napari_semsr.core import CheckpointError
from napari_semsr.models.onnx_network import OnnxNetwork
from tests.refusals import refused

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
helper = pytest.importorskip("onnx.helper")

SMALL = {
    "two-scale": {"width": 4, "fine_blocks": 1, "dilations": (1,), "scale": 2},
    "place": {"width": 4, "dilations": (1, 2)},
    "srcnn": {},
    "espcn": {},
    "resnet": {"width": 4, "blocks": 1},
    "esrgan": {"width": 8, "growth": 4, "blocks": 1},
    "correction": {"network": "srcnn"},
}


def _network(name):
    torch.manual_seed(0)
    made = models.build_network(name, SMALL[name]).eval()
    for weights in made.parameters():  # some begin at zero
        if weights.dim() > 1 and not weights.any():
            torch.nn.init.normal_(weights, std=0.05)
    known = {"scale": int(getattr(made, "scale", 1)), "stride": int(made.stride)}
    known |= {"name": "n", "architecture": name, "receptive_field": 0}
    return made, models.ModelCard(**known, options=SMALL[name])


@pytest.mark.parametrize(
    "name",
    [
        *("two-scale", "espcn"),
        *(pytest.param(name, marks=pytest.mark.broad) for name in [*SMALL][4:]),
    ],
)
def test_onnx_gives_what_torch_gives_whatever_the_size(name):
    network, card = _network(name)
    graph = OnnxNetwork(card.scale, card.stride, data=models.export_onnx(network, card))
    stride = card.stride
    odd = torch.rand(1, 1, 67, 75)
    beyond = (0, -75 % stride, 0, -67 % stride)
    padded = torch.nn.functional.pad(odd, beyond, mode="reflect")
    with torch.no_grad():
        whole = network(padded)[..., : 67 * card.scale, : 75 * card.scale]
    spread = max(float(np.ptp(whole.numpy())), 1.0)
    assert float((graph(odd) - whole).abs().max()) <= 1e-5 * spread


def test_a_model_file_holds_a_graph_as_any_other_network(tmp_path):
    network, card = _network("two-scale")
    graph, found = models.probe_onnx_network(models.export_onnx(network, card))
    onnx = {"architecture": "onnx", "options": {"scale": 2, "stride": 4}}
    told = card.model_copy(update=onnx)
    models.save_model(tmp_path / "n.safetensors", graph, told)
    loaded = models.load_model(tmp_path / "n.safetensors")
    field = torch.rand(1, 1, 16, 24)
    assert torch.equal(loaded.module(field), graph(field))
    assert models.probe_network(loaded.module, stride=4) == found
    assert loaded.module.activation_bytes((64, 64)) > 64 * 64 * 4


def test_memory_of_a_graph_is_that_of_its_widest_layers():
    network, card = _network("srcnn")  # 64 maps, then 32 beside them
    graph = OnnxNetwork(data=models.export_onnx(network, card))
    found = graph.activation_bytes((64, 64)) / 64**2
    assert 64 * 4 <= found <= (64 + 64 + 2) * 1.4 * 4  # of a field with its padding


# Graphs that were made to do harm, or are of no use.


def _value(name, shape, kind=None):
    kind = onnx.TensorProto.FLOAT if kind is None else kind
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes, *, given=(None, 1, None, None), made=None, weights=(), domain=""):
    ends = [_value("x", given)], [_value("y", made)]
    graph = helper.make_graph(nodes, "g", *ends, initializer=list(weights))
    versions = [("", 17), *([(domain, 1)] if domain else [])]
    opsets = [helper.make_opsetid(*version) for version in versions]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _read(model, *folder):
    return models.read_graph(model.SerializeToString(), "bad.onnx", *folder)


def _node(operator, *inputs, **options):
    return helper.make_node(operator, list(inputs) or ["x"], ["y"], **options)


def _numbers(name, values, dims=None):
    array = np.asarray(values)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor(name, kind, dims or array.shape, array.ravel().tolist())


def _tensor(*dims):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT)
    tensor.dims.extend(dims)
    return tensor


def _outside(location):
    """A product with weights that lie in another file."""
    tensor = _tensor(1, 1, 1, 1)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return _model([_node("Mul", "x", "w")], weights=[tensor])


def _lying():
    tensor = _tensor(1 << 20, 1 << 20)
    tensor.raw_data = b"1234"
    return _model([_node("Add", "x", "w")], weights=[tensor])


def _one(operator, *inputs, weights=(), domain="", **options):
    made = _node(operator, *inputs, **options)
    if domain:
        made.domain = domain
    return _model([made], weights=weights, domain=domain)


def _unknown(name):
    nodes = [helper.make_node("NonZero", ["x"], [name])]
    return _model([*nodes, helper.make_node("Cast", [name], ["y"], to=1)])


def _pairs():
    """Compare every pixel with every other one."""
    numbers = [
        _numbers("row", np.array([1, -1])),
        _numbers("column", np.array([-1, 1])),
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["x", "row"], ["a"]),
        helper.make_node("Reshape", ["x", "column"], ["b"]),
        helper.make_node("MatMul", ["b", "a"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["d"], axes=[1]),
        helper.make_node("Reshape", ["d", "s"], ["y"]),
    ]
    return _model(nodes, weights=numbers)


BRANCH = helper.make_graph([], "b", [], [_value("z", [1])])
SIZE = [_numbers("s", np.array([1, 1 << 20, 1024, 1024]))]
HALF = {"kernel_shape": [2, 2], "strides": [2, 2]}
BAD = {
    "rank": (_model([_node("Relu")], given=(None, None, None)), "only ? x ? x ?"),
    "colour": (
        _model([_node("Relu")], given=(None, 3, None, None)),
        "only ? x 3 x ? x ?",
    ),
    "fixed": (_model([_node("Relu")], given=(1, 1, 64, 64)), "only 1 x 1 x 64 x 64"),
    "two channels out": (_one("Concat", "x", "x", axis=1), "returns ? x 2 x ? x ?"),
    "half a pixel": (_one("AveragePool", **HALF), "not a multiple"),
    "custom": (_one("Strange", domain="com.evil"), "com.evil.Strange"),
    "loop": (_one("Loop", "", "", "x", body=BRANCH), "contains a subgraph"),
    "dice": (_one("RandomNormalLike"), "random numbers"),
    "huge": (
        _one("Expand", "x", "s", weights=SIZE),
        "returns ? x 1048576 x 1024",
    ),
    "names of two lines": (_unknown("a\nb"), "returns 4 x ?"),
    "too dear": (_pairs(), "times the memory"),
    "lies": (_lying(), "has 1099511627776 elements in 19 B"),
    "leaves": (_outside("../secret"), "outside its own folder"),
    "absent": (_outside("w.bin"), "needs w.bin next to it"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_graph_is_refused_in_one_sentence(tmp_path, name):
    model, reason = BAD[name]
    with pytest.raises(CheckpointError) as caught:
        models.probe_onnx_network(_read(model, tmp_path).serialise())
    said = str(caught.value)
    assert reason in said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "format-unknown"),
        (b"nothing", "model-damaged"),
        (b"\x08\x07" * 50, "format-unknown"),
    ],
)
def test_what_is_no_graph_is_refused(data, code):
    with refused(CheckpointError, code):
        models.read_graph(data, "bad.onnx")


def test_weights_beside_a_file_are_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.float32(3).tobytes())
    graph = _read(_outside("w.bin"), tmp_path)
    field = torch.rand(1, 1, 8, 8)
    found = OnnxNetwork(data=graph.serialise())(field)
    assert torch.allclose(found, 3 * field)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link").symlink_to(tmp_path / "w.bin")
    with refused(CheckpointError, "outside-folder"):
        _read(_outside("link"), tmp_path / "inner")


def test_a_rectifier_does_not_hide_how_far_a_graph_looks():
    weight = _numbers("w", np.full((1, 1, 7, 7), -1.0, np.float32))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[3, 3, 3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    model = _model(nodes, weights=[weight])
    network, found = models.probe_onnx_network(model.SerializeToString())
    assert found.halo == 3 + 1 + 1
    assert network.stride == 1


def test_values_that_decide_are_run_whole():
    nodes = [
        helper.make_node("Greater", ["x", "w"], ["a"]),
        helper.make_node("Where", ["a", "x", "w"], ["y"]),
    ]
    model = _model(nodes, weights=[_numbers("w", np.zeros((), np.float32))])
    _, found = models.probe_onnx_network(model.SerializeToString())
    assert found.halo is None


# What damaged files led to.


def test_an_output_that_no_layer_makes_is_refused():
    model = _model([_node("Relu")])
    model.graph.node[0].output[0] = "z"
    with refused(CheckpointError, "model-damaged"):
        models.probe_onnx_network(_read(model).serialise())
