"""Network from another program: an ONNX graph run by ONNX Runtime.

It has the interface of a torch network, so that it is tiled, probed, measured and
recorded like any other. The graph itself is its only weight, a row of bytes in the
model file. It always runs on the CPU in single precision.
"""

import copy
import hashlib
import io
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr import core
from napari_semsr.io import path_exists
from napari_semsr.models import probing
from napari_semsr.models.architectures import InformedRestorer
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.devices import get_first_error_line

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto


# Validation of ONNX graphs from other programs before they run.
#
# A graph is data, but running an unchecked one can read files, load code, or run
# forever. So `onnx.checker` validates it, only standard operators without subgraphs are
# accepted, and weights must be in the file or in its folder. Output size, memory and
# receptive field are measured by running it (`probe_onnx_network`).


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
        raise core.CheckpointError(msg, code="extra-missing") from error


@contextmanager
def _convert_errors(message: str, code: str = "model-damaged") -> Iterator[None]:
    """Convert any error into one with a message that ends with its reason."""
    try:
        yield
    except Exception as error:  # onnx, its runtime and exporter raise a dozen types
        raise core.CheckpointError(
            f"{message}: {get_first_error_line(error)}.", code=code
        ) from error


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """Validated graph."""

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


def read_graph(data: bytes, name: str, folder: Path | None = None) -> OnnxGraph:
    """Read and validate a graph with one grey image as input and one as output.

    Weights outside the file may be in `folder`, if given; `name` is for messages.
    """
    onnx = import_onnx()
    with _convert_errors(f"{name} cannot be read as ONNX"):
        model = onnx.load_model_from_string(data)
    if not model.graph.node:
        msg = f"{name} is not an ONNX model: it has no nodes."
        raise core.CheckpointError(msg, code="format-unknown")
    _check_tensors(model, name, folder)
    if model.functions:
        with _convert_errors(f"The functions of {name} cannot be inlined"):
            model = import_onnx("onnx.inliner").inline_local_functions(model)
    _check_nodes(model, name)
    source = _find_graph_input(model, name)
    outputs = model.graph.output
    if len(outputs) != 1:
        what = f"have a single output image, but has {len(outputs)}"
        raise _create_unsupported_error(name, what)
    tensor = outputs[0].type.tensor_type
    has_shape = tensor.HasField("shape")
    if not has_shape:  # accepted, but not by the checker
        tensor.shape.SetInParent()
    with _convert_errors(f"{name} is not valid ONNX"):
        onnx.checker.check_model(model)
    if not has_shape:
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


def _create_unsupported_error(name: str, what: str) -> core.CheckpointError:
    msg = f"An ONNX network must {what}: {name} cannot be used."
    return core.CheckpointError(msg, code="model-unsuitable")


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
            with _convert_errors(f"The external weights of {name} cannot be read"):
                helper.load_external_data_for_tensor(tensor, str(place))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        count, size = math.prod(tensor.dims), tensor.ByteSize()
        if min(tensor.dims, default=1) < 0 or count > 2 * size:
            label = core.format_one_line(str(tensor.name)) or "(unnamed)"
            msg = f"{name} is damaged: tensor {label} has {count} elements in {size} B."
            raise core.CheckpointError(msg, code="model-damaged")


def _find_weights_folder(tensor: "TensorProto", name: str, folder: Path | None) -> Path:
    """Return the folder of a tensor's weights, which must be in the model folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    label = core.format_one_line(str(location))
    if folder is None:
        msg = (
            f"The weights of {name} must be in the model file, but are in "
            f"{label}; save them in one file."
        )
        raise core.CheckpointError(msg, code="weights-elsewhere")
    inside = folder.resolve()
    file = inside / location.replace("\\", "/")
    is_name = location and {":", "\0"}.isdisjoint(location)
    if not is_name or not file.resolve().is_relative_to(inside):
        msg = f"{name} refers to weights at {location!r}, outside its own folder."
        raise core.CheckpointError(msg, code="outside-folder")
    if not path_exists(file) or not file.is_file():
        msg = f"{name} needs {label} next to it; copy both files."
        raise core.CheckpointError(msg, code="file-missing")
    return inside


def _check_nodes(model: "ModelProto", name: str) -> None:
    """Raise an error for non-standard, nested or random operators."""
    for node in model.graph.node:
        operator = core.format_one_line(f"{node.domain}.{node.op_type}".lstrip("."))
        inner = any(a.HasField("g") or len(a.graphs) for a in node.attribute)
        if node.domain not in _STANDARD:
            why = "is not in the ONNX standard and needs external code"
        elif inner:
            why = "contains a subgraph that may run endlessly"
        elif node.op_type in _RANDOM_OPERATORS:
            why = "uses random numbers, so that tiles would differ"
        else:
            continue
        msg = f"{name} uses the operator {operator}, which {why}."
        raise core.CheckpointError(msg, code="model-unsuitable")


def _find_graph_input(model: "ModelProto", name: str) -> str:
    """Find the only input, which must be a grey image of any size."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        what = f"have a single input image, but has {len(inputs)}"
        raise _create_unsupported_error(name, what)
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != import_onnx().TensorProto.FLOAT:
        raise _create_unsupported_error(name, "take grey values in float32")
    sizes = [d.dim_value if d.HasField("dim_value") else "?" for d in tensor.shape.dim]
    allowed = (("?", 0, 1), ("?", 1), ("?", 0), ("?", 0))
    if len(sizes) != 4 or any(n not in a for n, a in zip(sizes, allowed, strict=True)):
        shape = " x ".join(map(str, sizes))
        what = f"accept (B, 1, H, W) with any H and W, but accepts only {shape}"
        raise _create_unsupported_error(name, what)
    return str(inputs[0].name)


_STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # chosen: networks usually halve sizes
_EQUAL = 1e-5  # of the range; rounding causes 1e-6, a misaligned grid 4e-5 or more
_MIN_CORE = 32  # smallest number of compared px; chosen
_LARGEST_SCALE = 8  # as allowed in a card
_GROWTH = 8.0  # memory for twice the side: 4 if proportional, 16 for global attention
_TEST_SIDE = 32  # px
_NAME = "The ONNX graph of this model"
_FATAL = 4  # lowest severity that ONNX Runtime writes to the terminal
_NO_MEMORY = "alloc"  # common text of its out-of-memory messages


class _GraphRunner:
    """Validated graph, ready to run from several threads."""

    def __init__(self, data: bytes) -> None:
        self.graph: OnnxGraph = read_graph(data, _NAME)
        self._data, self.session = data, _create_session(data)
        (output,) = self.session.get_outputs()  # its shape is inferred by ONNX Runtime
        sizes = [n if isinstance(n, int) else "?" for n in output.shape]
        if len(sizes) != 4 or sizes[1] not in (1, "?"):
            shape = " x ".join(map(str, sizes))
            what = f"return (B, 1, H, W), but returns {shape}"
            raise _create_unsupported_error(_NAME, what)

    def run(
        self, image: core.Float32Array, session: Any = None
    ) -> list[core.RealArray]:
        """Run the graph on one image (1, 1, H, W), raising errors as torch does."""
        feed = {self.graph.input: image}
        session = session or self.session
        if session is None:
            session = self.session = _create_session(self._data)
        try:
            arrays: list[core.RealArray] = session.run(None, feed)
        except Exception as error:  # a dozen types, without a common base
            line = get_first_error_line(error)
            kind = MemoryError if _NO_MEMORY in line.lower() else RuntimeError
            raise kind(f"ONNX Runtime: {line}") from error
        return arrays

    def measure_peak_bytes(self, shape: core.IntPair) -> int:
        """Return the peak total size of simultaneously live layers for a field."""
        model = import_onnx().ModelProto()
        model.CopyFrom(self.graph.model)
        nodes, outputs = model.graph.node, model.graph.output
        del outputs[:]
        for name in (n for node in nodes for n in node.output if n):
            outputs.add(name=name)
        session = _create_session(model.SerializeToString())
        image = np.zeros((1, 1, *shape), np.float32)
        names = [output.name for output in session.get_outputs()]
        layers = zip(names, self.run(image, session), strict=True)
        sizes = {name: getattr(layer, "nbytes", 0) for name, layer in layers}
        last = {name: place for place, node in enumerate(nodes) for name in node.input}
        live = peak = 0
        for place, node in enumerate(nodes):
            live += sum(sizes.get(name, 0) for name in node.output)
            peak = max(peak, live)
            here = {*node.input, *node.output}
            ending = (name for name in here if last.get(name, place) <= place)
            live -= sum(sizes.get(name, 0) for name in ending)
        return image.nbytes + peak


_running: weakref.WeakValueDictionary[str, _GraphRunner] = weakref.WeakValueDictionary()


def _create_session(data: bytes) -> Any:
    """Create an ONNX Runtime session for a validated graph."""
    runtime = import_onnx("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.enable_mem_pattern = False  # it would take twice the memory
    # between two windows its threads would otherwise keep the cores busy with waiting
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with _convert_errors("ONNX Runtime cannot load this graph", "model-unsuitable"):
        return runtime.InferenceSession(
            data,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # required, although it prints a message
        )


class OnnxNetwork(nn.Module):
    """Network that runs a grey-image graph from the bytes of an ONNX file.

    `scale`, `stride`: as in a card; the graph does not state its stride.
    """

    graph: Tensor
    # Its layers cannot be intercepted: live norms are not found
    opaque = True
    single_precision = True  # whatever precision is requested

    def __init__(self, scale: int = 1, stride: int = 1, *, data: bytes = b"") -> None:
        super().__init__()
        stated: tuple[object, object] = (scale, stride)  # unchecked, from a file
        if not all(isinstance(n, int) and 1 <= n <= 1024 for n in stated):
            msg = f"scale and stride must be integers from 1 to 1024, got {stated!r}"
            raise ValueError(msg)
        self.scale, self.stride = scale, stride
        graph_bytes = np.frombuffer(data, dtype=np.uint8).copy()
        self.register_buffer("graph", torch.from_numpy(graph_bytes))
        self._runner: _GraphRunner | None = None

    def _load_from_state_dict(
        self, state: Mapping[str, Tensor], prefix: str, *rest: object
    ) -> None:
        """Accept a stored graph of any length."""
        graph = state.get(f"{prefix}graph")
        if graph is not None and graph.dtype == torch.uint8 and graph.dim() == 1:
            self.graph = torch.empty_like(graph)
        super()._load_from_state_dict(state, prefix, *rest)
        self._runner = None

    def __getstate__(self) -> dict[str, object]:
        """Exclude state that cannot be copied or pickled."""
        return {**self.__dict__, "_runner": None}

    def get_runner(self) -> _GraphRunner:
        """Return the validated graph runner, created once per process."""
        if self._runner is None:
            data = self.graph.cpu().numpy().tobytes()
            key = hashlib.sha256(data).hexdigest()
            _running[key] = self._runner = _running.get(key) or _GraphRunner(data)
        return self._runner

    def release_memory(self) -> None:
        """Return the memory that is kept from one window to the next."""
        if self._runner is not None:
            self._runner.session = None

    @property
    def deciding(self) -> bool:
        """Whether control flow depends on values, so the receptive field is unknown."""
        return self.get_runner().graph.deciding

    def activation_bytes(self, shape: core.IntPair) -> int:
        """Return the peak memory of the layers for a window, in bytes."""
        return self.get_runner().measure_peak_bytes(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Run images (B, 1, H, W) one by one, since a graph may not support batches."""
        planes = x.detach().to("cpu", torch.float32).contiguous().numpy()
        run = self.get_runner().run
        outputs = [run(plane[None])[0] for plane in planes]
        result = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        kind, shape = result.dtype, result.shape
        if len(shape) != 4 or shape[1] != 1 or kind != np.float32:
            msg = f"it returned {kind} of shape {shape}, not (B, 1, H, W)"
            raise RuntimeError(msg)
        return torch.from_numpy(result).to(x.device)


# Properties that a foreign graph does not state: stride and receptive field.


def probe_onnx_network(
    data: bytes, *, stride: int | None = None
) -> tuple[OnnxNetwork, probing.ProbeResult]:
    """Build a network from an ONNX graph, and measure its stride and receptive field.

    The stride in its card is used if it is valid, otherwise the smallest one for which
    fields of all its multiples are accepted, and a field cropped one stride further has
    the same result. The halo is measured as for other networks.
    """
    reason = ""
    for step in (*(() if stride is None else (stride,)), *_STRIDES):
        network = OnnxNetwork(1, step, data=data).eval()
        network.get_runner()  # raises an error for problems that no stride solves
        try:
            smallest = probing.find_minimum_field_size(network, stride=step)
            side = core.round_up(max(smallest, _TEST_SIDE), step)
            first, second = (network.activation_bytes((n, n)) for n in (side, 2 * side))
            if second > _GROWTH * first:
                reason = f"twice the side takes {second / first:.3g} times the memory"
                break
            _check_sizes(network, smallest)
            result = probing.probe_network(network, stride=step)
            if result.halo is None or _is_shift_invariant(network, result):
                return network, result
            reason = "a field cropped at another position has other values"
        except (RuntimeError, MemoryError, core.SemsrError) as error:
            reason = get_first_error_line(error)
    msg = (
        "A network must accept fields whose sides are multiples of 1, 2, 4 ... or "
        f"{_STRIDES[-1]} px, use memory in proportion to the field size, and give the "
        "same values for a field cropped at another position: this graph fails for all "
        f"of these strides ({reason})."
    )
    raise core.CheckpointError(msg, code="model-unsuitable")


def _check_sizes(network: OnnxNetwork, smallest: int) -> None:
    """Measure the scale on a small field and check it on larger fields."""
    stride = network.stride
    rows = network(torch.zeros(1, 1, smallest, smallest)).shape[2]
    scale, left = divmod(int(rows), smallest)
    if left or not 1 <= scale <= _LARGEST_SCALE:
        limits = f"{smallest} to {_LARGEST_SCALE * smallest}"
        msg = f"for {smallest} rows it returns {rows}, not a multiple in {limits}"
        raise RuntimeError(msg)
    network.scale = scale
    for rows, columns in ((1, 1), (1, 2), (3, 1)):
        shape = (smallest + stride * rows, smallest + stride * columns)
        output = network(torch.zeros(1, 1, *shape))
        if output.shape[2:] != tuple(n * scale for n in shape):
            msg = f"for {shape} px it returns {tuple(output.shape[2:])}"
            raise RuntimeError(msg)


def _is_shift_invariant(network: OnnxNetwork, result: probing.ProbeResult) -> bool:
    """Check that shifting a crop by one stride does not change the inner values.

    Strips are enough, as for the receptive field: their long borders are the same for
    both.
    """
    halo, stride, scale = result.halo or 0, network.stride, network.scale
    side = 2 * halo + result.smallest + core.round_up(_MIN_CORE, stride)
    across = core.round_up(max(result.smallest, _MIN_CORE), stride)
    rng = torch.Generator().manual_seed(0)
    strip = torch.rand(1, 1, side + stride, across, generator=rng)
    inner = slice((halo + stride) * scale, (side - halo) * scale)
    later = slice(halo * scale, (side - halo - stride) * scale)
    for field in (strip, strip.transpose(2, 3).contiguous()):
        axis = 2 if field is strip else 3
        with torch.no_grad():
            first = network(field.narrow(axis, 0, side)).movedim(axis, 0)[inner]
            second = network(field.narrow(axis, stride, side)).movedim(axis, 0)[later]
        spread = float(first.max() - first.min()) or 1.0
        if float((first - second).abs().max()) > _EQUAL * spread:
            return False
    return True


# Export of networks as ONNX, for fields of any size.
#
# The file contains the network and the padding of the tiled engine for a whole field:
# sides are reflect-padded to multiples of the stride, and the result is cropped. It
# does not scale grey values, since percentiles are those of the whole field; its
# metadata describe the input and contain the whole card.

CARD_KEY = "semsr_card"
OPSET = 17  # chosen: readable by ONNX Runtime of 2022 and by deepImageJ
_SPAN = 1e-5  # of the range; largest accepted difference of ONNX Runtime from torch
_TEST_MARGINS = ((0, 0), (5, 0), (1, 11))  # px in addition to the traced side


class _AnySizeNetwork(nn.Module):
    """Wrapper that accepts fields of any size, not only multiples of the stride."""

    def __init__(self, network: nn.Module, stride: int, scale: int) -> None:
        super().__init__()
        self.network, self.stride, self.scale = network, stride, scale
        self.side = max(64, 2 * stride)  # small, but enough for every layer

    def forward(self, field: Tensor) -> Tensor:
        rows, columns = field.shape[-2], field.shape[-1]
        if self.stride > 1:
            beyond = (0, -columns % self.stride, 0, -rows % self.stride)
            field = functional.pad(field, beyond, mode="reflect")
        output: Tensor = self.network(field)
        return output[..., : rows * self.scale, : columns * self.scale]


def export_onnx(module: nn.Module, card: ModelCard) -> bytes:
    """Export a network as ONNX, and check that ONNX Runtime gives the same output.

    It maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``, for any batch and size
    with sides of at least the stride; the card goes into the file's metadata.
    """
    if isinstance(module, InformedRestorer):
        msg = (
            f"{card.name} first analyses the whole field, which ONNX cannot express: "
            "export the network for one field (`field`), without haze removal."
        )
        raise core.CheckpointError(msg, code="export-unsupported")
    onnx = import_onnx()
    if isinstance(module, OnnxNetwork):
        model = onnx.load_model_from_string(module.graph.numpy().tobytes())
    else:
        whole = _AnySizeNetwork(copy.deepcopy(module), card.stride, card.scale).eval()
        model = onnx.load_model_from_string(_trace_network(whole, card))
    metadata = {
        CARD_KEY: card.model_dump_json(),
        "name": card.name,
        "description": card.description,
        "input": describe_input_scaling(card),
        "limits": card.limits,
        "licence": card.licence,
    }
    if card.pixel_size_nm is not None:
        metadata["pixel_size_nm"] = " to ".join(f"{v:g}" for v in card.pixel_size_nm)
    del model.metadata_props[:]
    import_onnx("onnx.helper").set_model_props(model, metadata)
    model.doc_string = card.description
    data: bytes = model.SerializeToString()
    if not isinstance(module, OnnxNetwork):
        _check_outputs(data, whole, card)
    return data


def _trace_network(whole: _AnySizeNetwork, card: ModelCard) -> bytes:
    """Trace a network on a field, and write it as ONNX."""
    field = torch.rand(1, 1, whole.side + 1, whole.side + 3)
    buffer = io.BytesIO()
    axes = {
        "input": {0: "batch", 2: "height", 3: "width"},
        "output": {0: "batch", 2: "output_height", 3: "output_width"},
    }
    message = f"{card.name} cannot be written as ONNX"
    with _convert_errors(message, "export-unsupported"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about deprecation and untraceable sizes
        torch.onnx.export(
            whole,
            (field,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,  # the new exporter needs onnxscript and separates weights
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def describe_input_scaling(card: ModelCard) -> str:
    """Describe the grey-value scaling of a network's input."""
    low, high = card.input_percentiles
    ways = {
        "percentiles": f"percentiles {low:g} and {high:g} of the whole field",
        "deviation": "the whole field's mean, and one standard deviation above it,",
        "levels": "the grey values {:g} and {:g}".format(*card.input_levels),
    }
    return (
        f"One grey channel (batch, 1, y, x), scaled so that {ways[card.input_scaling]} "
        "map to 0 and 1; the output has the same scale."
    )


def _check_outputs(data: bytes, whole: _AnySizeNetwork, card: ModelCard) -> None:
    """Check that ONNX Runtime and torch agree on fields of several sizes."""
    network = OnnxNetwork(card.scale, card.stride, data=data).eval()
    side, rng = whole.side, torch.Generator().manual_seed(0)
    for rows, columns in _TEST_MARGINS:
        field = torch.rand(1, 1, side + rows, side + columns, generator=rng)
        with torch.no_grad():
            ours, theirs = whole(field).numpy(), network(field).numpy()
        spread = max(float(np.ptp(ours)), float(field.max() - field.min()))
        off = float(np.abs(ours - theirs).max()) / spread
        if not off <= _SPAN:
            msg = (
                f"{card.name} cannot be exported: the outputs of ONNX Runtime and "
                f"torch differ by {off:.1e} of the range, more than {_SPAN:g}."
            )
            raise core.CheckpointError(msg, code="export-inexact")
