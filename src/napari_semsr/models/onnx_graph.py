"""ONNX graphs of others: what may run here, how large its layers get, how it is probed.

A graph is data, but one that is followed blindly can read files, ask for any amount of
memory, or never end. So only standard operators without inner graphs are taken, weights
must lie in the file or beside it, and the size of every layer is worked out before
anything is run: nodes that compute with sizes alone are evaluated one by one, as long
as they are small, and what is left has shapes that onnx can tell. What cannot be told
is refused.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import CheckpointError, one_line

_SIZE_LIMIT = 2**31 - 1  # bytes: what one message of protobuf can hold
_SIDE = 1024  # of the field for which sizes are worked out; nothing is computed on it
_SMALL = 4096  # elements: arithmetic of sizes and scales needs no more; chosen
_LONGEST = 1 << 20  # numbers of a list that is joined; chosen
_ASKED = 1 << 18  # nodes whose shapes are asked for, again and again; chosen: 2 s
# Of sides that are none below zero they make no others; kernels and pads may
_SURE = frozenset(
    {
        *(
            "Add",
            "Cast",
            "Clip",
            "Concat",
            "Div",
            "Erf",
            "Gather",
            "Identity",
            "LeakyRelu",
        ),
        *(
            "LayerNormalization",
            "MatMul",
            "Mul",
            "Pow",
            "PRelu",
            "Relu",
            "Reshape",
            "Shape",
        ),
        *("Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh"),
        *("Transpose", "Unsqueeze"),
    }
)
_COUNTING = frozenset(
    {"Shape", "Size"}
)  # which give a list as short as there are sides
_KEEPING = frozenset({"Cast", "Gather", "Slice", "Squeeze", "Unsqueeze"})  # no longer
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
    """Import onnx, a module of it, or onnxruntime, or say how to get them.

    Raises
    ------
    CheckpointError
        If it is not installed.
    """
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
                if any(v != 1 for a in node.attribute for v in _dilations(a)):
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


def _dilations(attribute: Any) -> Sequence[int]:
    return attribute.ints if attribute.name == "dilations" else ()


def read_graph(data: bytes, name: str, folder: Path | None = None) -> OnnxGraph:
    """Read and check a graph of one grey image in and one out.

    Parameters
    ----------
    data : bytes
        An ONNX file.
    name : str
        What it is called in messages.
    folder : pathlib.Path, optional
        Where weights may lie that are not in the file.

    Returns
    -------
    OnnxGraph
        What may be run.

    Raises
    ------
    CheckpointError
        If it is no ONNX model, asks for what is not allowed, or is no such network.
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
        or ":" in told
        or ".." in where.parts
        or not (inside / where).resolve().is_relative_to(inside)
    )
    if leaves:
        msg = f"{name} asks for weights at {told!r}, which is not in its own folder."
        raise CheckpointError(msg)
    if not (inside / where).is_file():
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


def _shapes(
    model: Any, source: str, name: str
) -> tuple[dict[str, tuple[int, ...]], list[Any]]:
    """Work out the shape of every layer for a field, and the nodes that compute it."""
    try:
        work = _Sizes(model, source)
        shapes = work.settle()
    except Exception as error:  # whatever onnx finds wrong with a graph
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        first = one_line(first, _SAID)
        msg = f"The layers of {name} do not fit each other: {first.rstrip('.')}."
        raise CheckpointError(msg) from error
    for node in work.graph.node:
        for made in filter(None, node.output):
            shape = shapes.get(made)
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
    return shapes, list(work.graph.node)


def _ready(nodes: Sequence[Any], known: Mapping[str, tuple[int, ...]]) -> list[Any]:
    """Choose nodes that onnx may be asked for: see `_Sizes._inferred`.

    A slice needs sides that cannot be below zero, a joined list parts that are short:
    those that are known, and what other nodes make of them.
    """
    whole, chosen = set(known), []
    short = {name for name, shape in known.items() if math.prod(shape) <= _SMALL}
    for node in nodes:
        given = set(node.input)
        ends = {a.i for a in node.attribute if a.name == "axis"}
        joins = node.op_type == "Concat" and ends <= {0, -1}
        if node.op_type == "Slice" and not set(node.input[:1]) <= whole:
            continue
        if joins and not _joins_few(node, known, short):
            continue
        chosen.append(node)
        if node.op_type in _SURE and given <= whole:
            whole.update(node.output)
        if node.op_type in _COUNTING or (node.op_type in _KEEPING and given <= short):
            short.update(node.output)
    return chosen


def _joins_few(
    node: Any, known: Mapping[str, tuple[int, ...]], short: set[str]
) -> bool:
    """Tell whether a joined list is short; images may be as large as they like."""
    given = set(node.input)
    shapes = [known.get(name, (_SMALL,)) for name in node.input]
    sizes = sum(shape[0] for shape in shapes if len(shape) == 1)
    if sizes <= _LONGEST:
        return given <= short or given <= known.keys()
    if given <= known.keys():
        msg = f"{_named(node.output[0])} lists {sizes} sizes"
        raise ValueError(msg)
    return False


class _Sizes:
    """A graph without its weights, in which arithmetic of sizes becomes numbers."""

    def __init__(self, model: Any, source: str) -> None:
        onnx = onnx_library()
        self.helper = onnx_library("onnx.helper")
        self.numpy = onnx_library("onnx.numpy_helper")
        self.infer: Callable[..., Any] = onnx_library("onnx.shape_inference")
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.values: dict[str, NDArray[Any]] = {}
        self.asked = 0  # nodes that onnx was asked for, one by one
        stored = list(self.graph.initializer)
        names = {tensor.name for tensor in stored}
        field = next(v for v in self.graph.input if v.name == source)
        dims = field.type.tensor_type.shape.dim
        for dim, size in zip(dims, (1, 1, _SIDE, _SIDE), strict=True):
            dim.dim_value = size
        kept = [v for v in self.graph.input if v.name not in names]
        for part in (self.graph.initializer, self.graph.input, self.graph.value_info):
            del part[:]
        self.graph.input.extend(kept)
        for value in self.graph.output:  # what a file claims is not relied on
            value.type.tensor_type.ClearField("shape")
        for tensor in stored:
            self._know(tensor.name, tensor)
        self._constants()

    def _know(self, name: str, tensor: Any) -> None:
        """Keep the values of a small tensor, and of a large one only its shape."""
        if math.prod(tensor.dims) > _SMALL:
            info = self.helper.make_tensor_value_info(
                name, tensor.data_type, list(tensor.dims)
            )
            self.graph.input.append(info)
            return
        self._set(name, self.numpy.to_array(tensor))

    def _set(self, name: str, value: NDArray[Any]) -> None:
        self.values[name] = value
        self.graph.initializer.append(self.numpy.from_array(value, name))

    def _constants(self) -> None:
        """Take tensors that stand in nodes out of them."""
        left = []
        for node in self.graph.node:
            tensors = [a.t for a in node.attribute if a.name == "value"]
            if node.op_type == "Constant" and tensors:
                self._know(node.output[0], tensors[0])
            else:
                left.append(node)
        self._keep(left)

    def _keep(self, nodes: Sequence[Any]) -> None:
        copies = [onnx_library().NodeProto() for _ in nodes]
        for copy, node in zip(copies, nodes, strict=True):
            copy.CopyFrom(node)
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def settle(self) -> dict[str, tuple[int, ...]]:
        """Evaluate until nothing more can be; gives the shapes that are known then."""
        while True:
            shapes = self._inferred()
            left = [
                node for node in self.graph.node if not self._evaluate(node, shapes)
            ]
            if len(left) == len(self.graph.node):
                return shapes
            self._keep(left)

    def _inferred(self) -> dict[str, tuple[int, ...]]:
        """Ask onnx for the shapes that follow from what is known.

        Slices and joined lists are asked for once their inputs are known, or sure to
        be of use. Of a slice whose sides are below zero, as kernels larger than a field
        make them, onnx ends the process; of a list it keeps each number apart, in 120
        bytes.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        nodes: list[Any] = []
        while True:
            values = {name: value.shape for name, value in self.values.items()}
            known = {"": (), **values, **shapes}
            found = _ready(self.graph.node, known)
            if len(found) == len(nodes):
                return shapes
            nodes = found
            self.asked += len(nodes)
            if self.asked > _ASKED:
                msg = "sizes follow from each other in too many steps"
                raise ValueError(msg)
            model = onnx_library().ModelProto()
            model.CopyFrom(self.model)
            del model.graph.node[:]
            model.graph.node.extend(nodes)
            shapes = self._asked(model)
            for name, shape in shapes.items():
                if min(shape, default=0) < 0:
                    msg = f"a side of {_named(name)} is below zero"
                    raise ValueError(msg)

    def _asked(self, model: Any) -> dict[str, tuple[int, ...]]:
        """Give the shapes that onnx infers."""
        found = self.infer.infer_shapes(  # type: ignore[attr-defined]
            model, data_prop=True
        )
        shapes = {}
        parts = (found.graph.value_info, found.graph.output, found.graph.input)
        for value in (value for part in parts for value in part):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(
                dim.HasField("dim_value") for dim in tensor.shape.dim
            ):
                shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        return shapes

    def _evaluate(self, node: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
        """Compute a node of small numbers; tell whether it could be."""
        if node.op_type == "Shape" and node.input[0] in shapes:
            marks = {a.name: a.i for a in node.attribute}
            cut = slice(marks.get("start"), marks.get("end"))
            sizes = np.array(shapes[node.input[0]], dtype=np.int64)[cut]
            self._set(node.output[0], sizes)
            return True
        if not all(i in self.values for i in node.input if i):
            return False
        made = [shapes.get(o) for o in node.output if o]
        if any(s is None or math.prod(s) > _SMALL for s in made):
            return False
        for name, value in zip(node.output, self._computed(node), strict=False):
            if name:
                self._set(name, np.asarray(value))
        return True

    def _computed(self, node: Any) -> Sequence[Any]:
        """Run one node, in onnx's own slow and plain way."""
        inputs = sorted({i for i in node.input if i})
        graph = self.helper.make_graph(
            [node],
            "one",
            [],
            [self.helper.make_empty_tensor_value_info(o) for o in node.output if o],
            initializer=[self.numpy.from_array(self.values[i], i) for i in inputs],
        )
        alone = self.helper.make_model(graph, opset_imports=self.model.opset_import)
        evaluator = onnx_library("onnx.reference").ReferenceEvaluator(alone)
        results: list[Any] = evaluator.run(None, {})
        return results


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


def _peak(nodes: Sequence[Any], shapes: dict[str, tuple[int, ...]]) -> int:
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
