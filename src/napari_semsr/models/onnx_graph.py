"""Validation of ONNX graphs from other programs before they run.

A graph is data, but running an unchecked one can read files, load code, or run forever.
So `onnx.checker` validates it, only standard operators without subgraphs are accepted,
and weights must be in the file or in its folder. Output size, memory and receptive
field are measured by running it (`probe_onnx_network`).
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from napari_semsr.core import CheckpointError, format_one_line
from napari_semsr.io import path_exists

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_SIZE_LIMIT = 2**31 - 1  # bytes; largest protobuf message
_MESSAGE_LENGTH = 300  # length of texts from a file or a library in a message; chosen
_STANDARD = ("", "ai.onnx")
_RANDOM_OPERATORS = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})  # fmt: skip
_DECIDING = frozenset({  # operators whose output need not be NaN if an input is
    "And", "ArgMax", "ArgMin", "Cast", "Compress", "Equal", "Greater",
    "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "MaxUnpool",
    "NonMaxSuppression", "NonZero", "Not", "Or", "TopK", "Unique", "Where",
})  # fmt: skip


def import_onnx(name: str = "onnx") -> ModuleType:
    """Import onnx, one of its modules or onnxruntime; raise an error if missing."""
    # since 1.31, onnxruntime sends telemetry for each session, with an identifier of
    # the computer
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(name)
    except ImportError as error:
        msg = "ONNX models need onnx and onnxruntime: pip install 'napari-semsr[onnx]'."
        raise CheckpointError(msg, code="extra-missing") from error


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """Validated graph with statically determined properties."""

    model: "ModelProto"  # weights inside
    input: str  # Name of the input, (B, 1, H, W)
    # Whether the control flow depends on values, so that the receptive field is unknown
    deciding: bool

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the file."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    def serialise(self) -> bytes:
        """Return the serialised graph."""
        data: bytes = self.model.SerializeToString()
        return data

    def serialise_layers(self) -> bytes:
        """Return the graph with every layer as an output, to measure layer sizes."""
        twin = import_onnx().ModelProto()
        twin.CopyFrom(self.model)
        del twin.graph.output[:]
        for name in (n for node in twin.graph.node for n in node.output if n):
            twin.graph.output.add(name=name)
        data: bytes = twin.SerializeToString()
        return data

    def compute_peak(self, sizes: Mapping[str, int]) -> int:
        """Return the peak total size of simultaneously live layers."""
        nodes = self.model.graph.node
        last = {name: place for place, node in enumerate(nodes) for name in node.input}
        live = peak = 0
        for place, node in enumerate(nodes):
            live += sum(sizes.get(name, 0) for name in node.output)
            peak = max(peak, live)
            here = {*node.input, *node.output}
            ending = (name for name in here if last.get(name, place) <= place)
            live -= sum(sizes.get(name, 0) for name in ending)
        return peak


def read_graph(data: bytes, name: str, folder: Path | None = None) -> OnnxGraph:
    """Read and validate a graph with one grey image as input and one as output.

    Weights outside the file may be in `folder`, if given; `name` is for messages.
    """
    onnx = import_onnx()
    if len(data) > _SIZE_LIMIT:
        raise CheckpointError(
            f"{name} must be smaller than 2 GiB to be read as ONNX.",
            code="file-too-large",
        )
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # Google's DecodeError, which is not imported here
        reason = format_one_line(str(error), _MESSAGE_LENGTH).rstrip(".")
        msg = f"{name} cannot be read as ONNX: {reason}."
        raise CheckpointError(msg, code="model-damaged") from error
    if not model.graph.node:
        raise CheckpointError(
            f"{name} is not an ONNX model: it has no nodes.", code="format-unknown"
        )
    _check_tensors(model, name, folder)
    model = _inline_functions(model, name)
    _check_nodes(model, name)
    source = _find_graph_input(model, name)
    if len(model.graph.output) != 1:
        output_count = len(model.graph.output)
        raise _create_unsupported_error(
            name, f"have a single output image, but has {output_count}"
        )
    shapes = [value.type.tensor_type for value in model.graph.output]
    bare = [tensor for tensor in shapes if not tensor.HasField("shape")]
    for tensor in bare:  # a file may lack them without an error from the checker
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # errors of onnx and of its library
        reason = format_one_line(str(error), _MESSAGE_LENGTH).rstrip(".")
        raise CheckpointError(
            f"{name} is not valid ONNX: {reason}.", code="model-damaged"
        ) from error
    for tensor in bare:
        tensor.ClearField("shape")
    return OnnxGraph(model, source, _is_data_dependent(model.graph))


def _is_data_dependent(graph: "GraphProto") -> bool:
    """Check whether the control flow depends on grey values, not only on sizes."""
    sizes = {"", *(tensor.name for tensor in graph.initializer)}
    kinds = import_onnx().TensorProto
    real = (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16)
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or sizes.issuperset(node.input):
            sizes.update(node.output)
        elif node.op_type in _DECIDING:
            to = [a.i for a in node.attribute if a.name == "to"]
            # a cast between real types changes only the numeric precision
            if node.op_type != "Cast" or any(kind not in real for kind in to):
                return True
    return False


def _convert_to_text(name: str | bytes) -> str:
    """Convert a name read from a file to printable text."""
    return format_one_line(name if isinstance(name, str) else repr(name))


def _create_unsupported_error(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"An ONNX network must {what}: {name} cannot be used.",
        code="model-unsuitable",
    )


# Forbidden contents of a file.


def _check_tensors(model: "ModelProto", name: str, folder: Path | None) -> None:
    """Load external weights into the graph; raise an error for invalid tensors."""
    onnx = import_onnx()
    helper = import_onnx("onnx.external_data_helper")
    tensors = [*model.graph.initializer]
    for sparse in model.graph.sparse_initializer:
        tensors += sparse.values, sparse.indices
    for attribute in (one for node in model.graph.node for one in node.attribute):
        if attribute.HasField("t"):
            tensors.append(attribute.t)
        tensors += attribute.tensors
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = _find_weights_folder(tensor, name, folder)
            try:
                helper.load_external_data_for_tensor(tensor, str(place))
            except (
                Exception
            ) as error:  # onnx raises many errors; a damaged file may cause any
                reason = format_one_line(str(error), _MESSAGE_LENGTH).rstrip(".")
                msg = f"The external weights of {name} cannot be read: {reason}."
                raise CheckpointError(msg, code="model-damaged") from error
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        element_count = math.prod(tensor.dims)
        if min(tensor.dims, default=1) < 0 or element_count > 2 * tensor.ByteSize():
            msg = (
                f"{name} is damaged: its tensor "
                f"{_convert_to_text(tensor.name) or '(unnamed)'} declares "
                f"{element_count} elements in {tensor.ByteSize()} bytes."
            )
            raise CheckpointError(msg, code="model-damaged")


def _find_weights_folder(tensor: "TensorProto", name: str, folder: Path | None) -> Path:
    """Return the folder of a tensor's weights, which must be in the model folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = PurePosixPath(location.replace("\\", "/"))
    if folder is None:
        msg = (
            f"{name} stores weights in another file, {_convert_to_text(location)}, but "
            "only weights inside the model file are supported here; save them in one "
            "file."
        )
        raise CheckpointError(msg, code="weights-elsewhere")
    inside = folder.resolve()
    leaves = (
        not location
        or where.is_absolute()
        or not {":", "\0"}.isdisjoint(location)
        or ".." in where.parts
        or not (inside / where).resolve().is_relative_to(inside)
    )
    if leaves:
        msg = f"{name} refers to weights at {location!r}, outside its own folder."
        raise CheckpointError(msg, code="outside-folder")
    if not path_exists(inside / where) or not (inside / where).is_file():
        location = _convert_to_text(location)
        msg = (
            f"{name} needs the weights file {location}, which is not in the same "
            "folder; copy both files."
        )
        raise CheckpointError(msg, code="file-missing")
    return inside


def _inline_functions(model: "ModelProto", name: str) -> "ModelProto":
    """Inline the functions defined in a model."""
    if not model.functions:
        return model
    try:
        inliner = import_onnx("onnx.inliner")
        inlined_model: ModelProto = inliner.inline_local_functions(model)
    except Exception as error:
        reason = format_one_line(str(error), _MESSAGE_LENGTH).rstrip(".")
        msg = f"The functions of {name} cannot be inlined: {reason}."
        raise CheckpointError(msg, code="model-damaged") from error
    return inlined_model


def _check_nodes(model: "ModelProto", name: str) -> None:
    """Raise an error for non-standard, nested or random operators."""
    for node in model.graph.node:
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        inner = any(a.HasField("g") or len(a.graphs) for a in node.attribute)
        if node.domain not in _STANDARD:
            why = "is not in the ONNX standard and needs external code"
        elif inner:
            why = "contains a subgraph that may run endlessly"
        elif node.op_type in _RANDOM_OPERATORS:
            why = "uses random numbers, so that tiles would differ"
        else:
            continue
        msg = f"{name} uses the operator {_convert_to_text(operator)}, which {why}."
        raise CheckpointError(msg, code="model-unsuitable")


def _find_graph_input(model: "ModelProto", name: str) -> str:
    """Find the only input, which must be a grey image of any size."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        raise _create_unsupported_error(
            name, f"have a single input image, but has {len(inputs)}"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != import_onnx().TensorProto.FLOAT:
        raise _create_unsupported_error(name, "take grey values in float32")
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
    ]
    if len(sizes) != 4:
        raise _create_unsupported_error(
            name, f"accept (B, 1, H, W), but its input has rank {len(sizes)}"
        )
    batch, channels, rows, columns = sizes
    if channels not in (None, 1):
        raise _create_unsupported_error(
            name, f"accept one channel, but takes {channels}"
        )
    if rows or columns or batch not in (None, 0, 1):
        sizes_text = " x ".join("?" if size is None else str(size) for size in sizes)
        raise _create_unsupported_error(
            name, f"accept fields of any size, but takes only {sizes_text}"
        )
    return str(inputs[0].name)
