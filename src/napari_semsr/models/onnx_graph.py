"""ONNX graphs of others: what may run here, how large its layers get, how it is probed.

A graph is data, but one that is followed blindly can read files, ask for any amount of
memory, or never end. So only standard operators without inner graphs are taken, weights
must lie in the file or beside it, and the size of every layer is worked out before
anything is run: node by node, onnx tells the shapes that follow, and what computes with
a few numbers alone is evaluated. What cannot be told is refused.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from napari_semsr.core import CheckpointError, one_line
from napari_semsr.io import is_there

_SIZE_LIMIT = 2**31 - 1  # bytes: what one message of protobuf can hold
_SIDE = 1024  # of the field for which sizes are worked out; nothing is computed on it
_SMALL = 4096  # elements: arithmetic of sizes and scales needs no more; chosen
_WIDEST = 4096  # values a pixel of the field in one layer; esrgan's largest: 1024
_SAID = 300  # letters of what a file or a library says in a message; chosen
_LARGEST_SCALE = 8  # as a card may say
_STANDARD = ("", "ai.onnx")
_DRAWN = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})  # fmt: skip

# Before NaN is let through a graph: ONNX Runtime's rectifiers and maxima may swallow
# it. What acts on each value by itself is left out, and a maximum becomes a mean.
_POINTWISE = frozenset({
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish",
    "PRelu", "Relu", "Selu", "Shrink", "Sigmoid", "Softplus", "Softsign", "Swish",
    "Tanh", "ThresholdedRelu",
})  # fmt: skip
_SPREADING = {
    "Max": "Sum",
    "Min": "Sum",
    "ReduceMax": "ReduceMean",
    "ReduceMin": "ReduceMean",
    "GlobalMaxPool": "GlobalAveragePool",
}
_POOL = ("auto_pad", "ceil_mode", "kernel_shape", "pads", "strides")
_DECIDING = frozenset({  # what reads values and passes none of them on
    "And", "ArgMax", "ArgMin", "Cast", "Compress", "Equal", "Greater",
    "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "MaxUnpool",
    "NonMaxSuppression", "NonZero", "Not", "Or", "TopK", "Unique", "Where",
})  # fmt: skip


def onnx_library(name: str = "onnx") -> Any:
    """Import onnx, a module of it, or onnxruntime, or say how to get them."""
    # since 1.31 onnxruntime numbers the computer and tells its maker of each session
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(name)
    except ImportError as error:
        msg = "ONNX models need onnx and onnxruntime: pip install 'napari-semsr[onnx]'."
        raise CheckpointError(msg) from error


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """A graph that may be run, and what is known of it before."""

    model: Any  # onnx.ModelProto, weights inside
    input: str  # Name of the input, (B, 1, H, W)
    scale: int  # Output pixels per input pixel along each axis
    bytes_per_pixel: float  # Layers that are alive at once, for a pixel of the input
    deciding: bool  # Whether values decide what is done: NaN would not tell the reach

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    def serialised(self) -> bytes:
        """Give the whole graph as bytes."""
        data: bytes = self.model.SerializeToString()
        return data

    def spreading(self) -> bytes | None:
        """Give a graph of the same reach that lets NaN through; None where none does.

        Its values are not those of the network.
        """
        if self.deciding:
            return None
        twin = onnx_library().ModelProto()
        twin.CopyFrom(self.model)
        for node in twin.graph.node:
            if node.op_type in _POINTWISE:
                first = node.input[0]
                _become(node, "Identity", ())
                node.input[:] = [first]
            elif node.op_type in _SPREADING:
                node.op_type = _SPREADING[node.op_type]
            elif node.op_type == "MaxPool":
                told = {a.name: a.ints for a in node.attribute}
                if any(dilation != 1 for dilation in told.get("dilations", ())):
                    return None
                _become(node, "AveragePool", _POOL)
                node.output[:] = node.output[:1]
        data: bytes = twin.SerializeToString()
        return data


def _become(node: Any, operator: str, kept: Sequence[str]) -> None:
    """Change a node's operator, and keep some of its attributes."""
    left = [attribute for attribute in node.attribute if attribute.name in kept]
    del node.attribute[:]
    node.attribute.extend(left)
    node.op_type = operator


def read_graph(data: bytes, name: str, folder: Path | None = None) -> OnnxGraph:
    """Read and check a graph of one grey image in and one out.

    Weights may lie in the folder, where one is given, that are not in the file; `name`
    is for messages.
    """
    onnx = onnx_library()
    if len(data) > _SIZE_LIMIT:
        raise CheckpointError(f"{name} must be under 2 GiB to be read as ONNX.")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # google's DecodeError, which is not for us to import
        reason = one_line(str(error), _SAID).rstrip(".")
        msg = f"{name} cannot be read as ONNX: {reason}."
        raise CheckpointError(msg) from error
    if not model.graph.node:
        raise CheckpointError(f"{name} is no ONNX model: it has no nodes.")
    _check_tensors(model, name, folder)
    model = _inlined(model, name)
    _check_nodes(model, name)
    source = _input_of(model, name)
    shapes, left = _shapes(model, source, name)
    if len(model.graph.output) != 1:
        found = len(model.graph.output)
        raise _unfit(name, f"give one image, and it gives {found} outputs")
    made = shapes.get(model.graph.output[0].name)
    if made is None:
        raise _unfit(name, "make its output, which none of its layers does")
    return OnnxGraph(
        model,
        source,
        _scale_of(made, name),
        _peak(left, shapes) / _SIDE**2,
        any(node.op_type in _DECIDING and not _is_float(node) for node in left),
    )


def _is_float(node: Any) -> bool:
    """Whether a node only changes the precision of its values."""
    kinds = onnx_library().TensorProto
    real = (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16)
    to = [a.i for a in node.attribute if a.name == "to"]
    return node.op_type == "Cast" and all(kind in real for kind in to)


def _named(told: str | bytes) -> str:
    """Write a name of a file into a sentence; bytes where it is no text."""
    return one_line(told if isinstance(told, str) else repr(told))


def _unfit(name: str, what: str) -> CheckpointError:
    return CheckpointError(f"A network in ONNX must {what}: {name} is not of use here.")


# What a file must not ask for.


def _tensors(graph: Any) -> Iterator[Any]:
    """All stored tensors of a graph, those of attributes too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensors(model: Any, name: str, folder: Path | None) -> None:
    """Bring weights into the file, and refuse those that claim what is not so."""
    onnx = onnx_library()
    helper = onnx_library("onnx.external_data_helper")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = _place_of(tensor, name, folder)
            try:
                helper.load_external_data_for_tensor(tensor, str(place))
            except Exception as error:  # onnx has many; a damaged file, all of them
                reason = one_line(str(error), _SAID).rstrip(".")
                msg = f"The weights beside {name} cannot be read: {reason}."
                raise CheckpointError(msg) from error
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        claimed = math.prod(tensor.dims)
        if min(tensor.dims, default=1) < 0 or claimed > 2 * tensor.ByteSize():
            msg = (
                f"{name} is damaged: its tensor {_named(tensor.name) or '(unnamed)'} "
                f"claims {claimed} numbers in {tensor.ByteSize()} bytes."
            )
            raise CheckpointError(msg)


def _place_of(tensor: Any, name: str, folder: Path | None) -> Path:
    """Give the folder of a tensor's own file, which must not be left."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    told = entries.get("location", "")
    where = PurePosixPath(told.replace("\\", "/"))
    if folder is None:
        msg = (
            f"{name} keeps weights in another file, {_named(told)}: only weights in "
            "the same file are read here; save it with them."
        )
        raise CheckpointError(msg)
    inside = folder.resolve()
    leaves = (
        not told
        or where.is_absolute()
        or not {":", "\0"}.isdisjoint(told)
        or ".." in where.parts
        or not (inside / where).resolve().is_relative_to(inside)
    )
    if leaves:
        msg = f"{name} asks for weights at {told!r}, which is not in its own folder."
        raise CheckpointError(msg)
    if not is_there(inside / where) or not (inside / where).is_file():
        told = _named(told)
        msg = f"{name} keeps weights in {told}, which is not beside it; copy both."
        raise CheckpointError(msg)
    return inside


def _inlined(model: Any, name: str) -> Any:
    """Put functions that a file defines itself in the place of their calls."""
    if not model.functions:
        return model
    try:
        return onnx_library("onnx.inliner").inline_local_functions(model)
    except Exception as error:
        reason = one_line(str(error), _SAID).rstrip(".")
        msg = f"The functions of {name} cannot be followed: {reason}."
        raise CheckpointError(msg) from error


def _check_nodes(model: Any, name: str) -> None:
    """Refuse operators that are not standard, have graphs inside, or draw numbers."""
    for node in model.graph.node:
        told = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        inner = any(a.HasField("g") or len(a.graphs) for a in node.attribute)
        if node.domain not in _STANDARD:
            why = "is not of the ONNX standard and needs code of others"
        elif inner:
            why = "holds a graph that may run without end"
        elif node.op_type in _DRAWN:
            why = "draws random numbers, so that tiles would not agree"
        else:
            continue
        msg = f"{name} uses the operator {_named(told)}, which {why}."
        raise CheckpointError(msg)


def _input_of(model: Any, name: str) -> str:
    """Find the one input, a grey image of any size."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise _unfit(name, f"take one image, and it has {len(inputs)} inputs")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != onnx_library().TensorProto.FLOAT:
        raise _unfit(name, "take grey values in float32")
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    ]
    if len(sizes) != 4:
        raise _unfit(name, f"take (B, 1, H, W), and its input has rank {len(sizes)}")
    batch, channels, rows, columns = sizes
    if channels not in (None, 1):
        raise _unfit(name, f"take one channel, and it takes {channels}")
    if rows or columns or batch not in (None, 0, 1):
        said = " x ".join("?" if size is None else str(size) for size in sizes)
        raise _unfit(name, f"take fields of any size, and it takes {said} alone")
    return str(inputs[0].name)


# Sizes, without computing anything large.

_Shapes = dict[str, tuple[int, ...]]


def _shapes(model: Any, source: str, name: str) -> tuple[_Shapes, list[Any]]:
    """Work out the shape of every layer for a field, and the nodes that compute it."""
    sizes, computing = _Sizes(model, source), []
    for node in model.graph.node:
        try:
            computes = not sizes.follow(node)
        except Exception as error:  # whatever onnx finds wrong with a graph
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            first = one_line(first, _SAID)
            msg = f"The layers of {name} do not fit each other: {first.rstrip('.')}."
            raise CheckpointError(msg) from error
        if not computes:
            continue
        computing.append(node)
        for made in filter(None, node.output):
            shape = sizes.shapes.get(made)
            layer = f"{_named(made)} ({_named(node.op_type)})"
            if shape is None:
                msg = (
                    f"The size of {layer} in {name} cannot be told "
                    "before it is run: it may need any amount of memory."
                )
                raise CheckpointError(msg)
            if math.prod(shape) > _WIDEST * _SIDE**2:
                msg = (
                    f"{name} would need {math.prod(shape) / _SIDE**2:.3g} values a "
                    f"pixel for {layer}, and {_WIDEST} are allowed."
                )
                raise CheckpointError(msg)
    return sizes.shapes, computing


class _Sizes:
    """What is known of the tensors of a graph: types, shapes, and small values."""

    def __init__(self, model: Any, source: str) -> None:
        self.onnx, self.helper = onnx_library(), onnx_library("onnx.helper")
        self.opsets = model.opset_import
        self.values: dict[str, Any] = {}  # TensorProto
        self.types: dict[str, Any] = {}  # TypeProto
        self.shapes: _Shapes = {}
        kind = self.onnx.TensorProto.FLOAT
        self._know(source, kind, (1, 1, _SIDE, _SIDE))
        for sparse in model.graph.sparse_initializer:
            self._know(sparse.values.name, sparse.values.data_type, sparse.dims)
        for tensor in model.graph.initializer:
            self._know(tensor.name, tensor.data_type, tensor.dims)
            if math.prod(tensor.dims) <= _SMALL:
                self.values[tensor.name] = tensor

    def _know(self, name: str, kind: int, shape: Sequence[int]) -> None:
        self.types[name] = self.helper.make_tensor_type_proto(kind, tuple(shape))
        self.shapes[name] = tuple(shape)

    def follow(self, node: Any) -> bool:
        """Find what a node makes; tell whether that is numbers, and no layer."""
        if node.op_type == "Shape" and node.input[0] in self.shapes:
            ends = {a.name: a.i for a in node.attribute}
            cut = slice(ends.get("start"), ends.get("end"))
            sizes = self.shapes[node.input[0]][cut]
            kind = self.onnx.TensorProto.INT64
            name = node.output[0]
            self._know(name, kind, (len(sizes),))
            self.values[name] = self.helper.make_tensor(
                name, kind, (len(sizes),), sizes
            )
            return True
        alone = self._alone(node)
        found = self.onnx.shape_inference.infer_shapes(alone)
        for value in found.graph.output:
            tensor = value.type.tensor_type
            self.types[value.name] = value.type
            if tensor.HasField("shape") and all(
                dim.HasField("dim_value") for dim in tensor.shape.dim
            ):
                shape = tuple(dim.dim_value for dim in tensor.shape.dim)
                if min(shape, default=0) < 0:
                    msg = f"a side of {_named(value.name)} is below zero"
                    raise ValueError(msg)
                self.shapes[value.name] = shape
        made = [self.shapes.get(name) for name in node.output if name]
        if not all(name in self.values for name in node.input if name) or any(
            shape is None or math.prod(shape) > _SMALL for shape in made
        ):
            return False
        evaluator = onnx_library("onnx.reference").ReferenceEvaluator(alone)
        outputs = [name for name in node.output if name]
        for name, value in zip(outputs, evaluator.run(None, {}), strict=True):
            tensor = self.onnx.numpy_helper.from_array(np.asarray(value), name)
            self._know(name, tensor.data_type, tensor.dims)
            self.values[name] = tensor
        return True

    def _alone(self, node: Any) -> Any:
        """Make a model of one node, which has the numbers that are known inside."""
        given = sorted({name for name in node.input if name})
        graph = self.helper.make_graph(
            [node],
            "one",
            [
                self.helper.make_value_info(name, self.types[name])
                for name in given
                if name in self.types and name not in self.values
            ],
            [
                self.helper.make_empty_tensor_value_info(name)
                for name in node.output
                if name
            ],
            initializer=[self.values[name] for name in given if name in self.values],
        )
        return self.helper.make_model(graph, opset_imports=self.opsets)


def _scale_of(shape: tuple[int, ...], name: str) -> int:
    """Tell the scale from the shape that comes of a field."""
    rank = len(shape)
    if rank != 4:
        raise _unfit(name, f"give (B, 1, H, W), and its output has rank {rank}")
    if shape[1] != 1:
        raise _unfit(name, f"give one channel, and it gives {shape[1]}")
    scale, left = divmod(shape[2], _SIDE)
    if (
        shape[0] != 1
        or left
        or not 1 <= scale <= _LARGEST_SCALE
        or (shape[2] != shape[3])
    ):
        said = " x ".join(str(size) for size in shape)
        what = f"give 1 to {_LARGEST_SCALE} whole pixels for each of its input's, and "
        raise _unfit(name, f"{what}of 1 x 1 x {_SIDE} x {_SIDE} it makes {said}")
    return scale


def _peak(nodes: Sequence[Any], shapes: _Shapes) -> int:
    """Bytes of layers that are alive at once, each until it is used last."""
    last = {name: place for place, node in enumerate(nodes) for name in node.input}
    live, peak = _SIDE**2, _SIDE**2
    held: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in filter(None, node.output):
            held[name] = math.prod(shapes[name])
            live += held[name]
        peak = max(peak, live)
        for name in {*node.input, *node.output}:
            if last.get(name, place) <= place:
                live -= held.pop(name, 0)
    return 4 * peak  # float32; integers of sizes do not count
