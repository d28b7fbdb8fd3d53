"""Network from another program: an ONNX graph run by ONNX Runtime.

It has the interface of a torch network, so that it is tiled, probed, measured and
recorded like any other. The graph itself is its only weight, a row of bytes in the
model file. It always runs on the CPU in single precision.
"""

import copy
import hashlib
import io
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import (
    CheckpointError,
    Float32Array,
    IntPair,
    RealArray,
    SemsrError,
    format_one_line,
    round_up,
)
from napari_semsr.models.architectures import InformedRestorer
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.onnx_graph import OnnxGraph, import_onnx, read_graph
from napari_semsr.models.probing import (
    ProbeResult,
    find_minimum_field_size,
    probe_network,
)

_STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # chosen: networks usually halve sizes
_EQUAL = 1e-5  # of the range; rounding causes 1e-6, a misaligned grid 4e-5 or more
_MIN_CORE = 32  # smallest number of compared px; chosen
_LARGEST_SCALE = 8  # as allowed in a card
_GROWTH = 8.0  # memory for twice the side: 4 if proportional, 16 for global attention
_TEST_SIDE = 32  # px
_NAME = "The ONNX graph of this model"
_FATAL = 4  # lowest severity that ONNX Runtime writes to the terminal
_MESSAGE_LENGTH = 200  # length of texts from a library in a message; chosen
_NO_MEMORY = "alloc"  # common text of its out-of-memory messages


class _GraphRunner:
    """Validated graph, ready to run from several threads."""

    def __init__(self, data: bytes) -> None:
        self.graph: OnnxGraph = read_graph(data, _NAME)
        self._session = _create_session(data)
        (output,) = self._session.get_outputs()  # its shape is inferred by ONNX Runtime
        for axis, what in ((None, "(B, 1, H, W)"), (1, "one channel")):
            output_count = len(output.shape) if axis is None else output.shape[axis]
            if isinstance(output_count, int) and output_count != (
                4 if axis is None else 1
            ):
                kind = "rank" if axis is None else "channels"
                msg = f"An ONNX network must return {what}, got {kind} {output_count}."
                raise CheckpointError(msg, code="model-unsuitable")

    def run(self, image: Float32Array) -> RealArray:
        """Run the graph on one image (1, 1, H, W), raising errors as torch does."""
        output: RealArray = self._run_session(self._session, image)[0]
        return output

    def measure_peak_bytes(self, image: Float32Array) -> int:
        """Run the graph on one image; return the peak layer memory in bytes."""
        session = _create_session(self.graph.serialise_layers())
        names = [output_array.name for output_array in session.get_outputs()]
        output_array = self._run_session(session, image)
        sizes = {
            n: getattr(m, "nbytes", 0) for n, m in zip(names, output_array, strict=True)
        }
        return image.nbytes + self.graph.compute_peak(sizes)

    def _run_session(self, session: Any, image: Float32Array) -> list[RealArray]:
        try:
            arrays: list[RealArray] = session.run(None, {self.graph.input: image})
        except Exception as error:  # a dozen types, without a common base
            error_lines = str(error).strip().splitlines() or [type(error).__name__]
            kind = MemoryError if _NO_MEMORY in error_lines[0].lower() else RuntimeError
            raise kind(f"ONNX Runtime: {error_lines[0]}") from error
        return arrays


_running: weakref.WeakValueDictionary[str, _GraphRunner] = weakref.WeakValueDictionary()


def _create_session(data: bytes) -> Any:
    """Create an ONNX Runtime session for a validated graph."""
    runtime = import_onnx("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.enable_cpu_mem_arena = False  # else it would keep its peak memory
    try:
        return runtime.InferenceSession(
            data,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # required, although it prints a message
        )
    except Exception as error:  # as above
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"ONNX Runtime cannot load this graph: {first.rstrip('.')}."
        raise CheckpointError(msg, code="model-unsuitable") from error


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
        scale_stated: tuple[object, object] = (scale, stride)  # unchecked, from a file
        if not all(isinstance(n, int) and 1 <= n <= 1024 for n in scale_stated):
            msg = (
                f"scale and stride must be integers from 1 to 1024, got {scale!r}, "
                f"{stride!r}"
            )
            raise ValueError(msg)
        self.scale, self.stride = scale, stride
        graph_bytes = np.frombuffer(data, dtype=np.uint8).copy()
        self.register_buffer("graph", torch.from_numpy(graph_bytes))
        self._runner: _GraphRunner | None = None

    def _load_from_state_dict(
        self, state: Mapping[str, Tensor], prefix: str, *rest: object
    ) -> None:
        """Accept a stored graph of any length."""
        graph_given = state.get(f"{prefix}graph")
        if (
            graph_given is not None
            and graph_given.dtype == torch.uint8
            and graph_given.dim() == 1
        ):
            self.graph = torch.empty_like(graph_given)
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
            runner_found = _running.get(key) or _GraphRunner(data)
            _running[key] = self._runner = runner_found
        return self._runner

    @property
    def deciding(self) -> bool:
        """Whether control flow depends on values, so the receptive field is unknown."""
        return self.get_runner().graph.deciding

    def activation_bytes(self, shape: IntPair) -> int:
        """Return the peak memory of the layers for a window, in bytes."""
        return self.get_runner().measure_peak_bytes(
            np.zeros((1, 1, *shape), np.float32)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run images (B, 1, H, W) one by one, since a graph may not support batches."""
        planes = x.detach().to("cpu", torch.float32).contiguous().numpy()
        run = self.get_runner().run
        outputs = [run(plane[None]) for plane in planes]
        result = np.concatenate(outputs)
        if result.ndim != 4 or result.shape[1] != 1 or result.dtype != np.float32:
            msg = (
                f"it returned {result.dtype} of shape {result.shape}, not (B, 1, H, W)"
            )
            raise RuntimeError(msg)
        return torch.from_numpy(result).to(x.device)


# Properties that a foreign graph does not state: stride and receptive field.


def probe_onnx_network(
    data: bytes, *, stride: int | None = None
) -> tuple[OnnxNetwork, ProbeResult]:
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
            smallest = find_minimum_field_size(network, stride=step)
            side = round_up(max(smallest, _TEST_SIDE), step)
            first, second = (network.activation_bytes((n, n)) for n in (side, 2 * side))
            if second > _GROWTH * first:
                reason = (
                    f"doubling the side takes {second / first:.3g} times the memory"
                )
                break
            _check_sizes(network, smallest)
            probe_result = probe_network(network, stride=step)
            if probe_result.halo is None or _is_shift_invariant(network, probe_result):
                return network, probe_result
            reason = "a field cropped at another position has other values"
        except (RuntimeError, MemoryError, SemsrError) as error:
            reason = format_one_line(str(error), _MESSAGE_LENGTH).rstrip(".")
    msg = (
        "A network must accept fields whose sides are multiples of 1, 2, 4 ... or "
        f"{_STRIDES[-1]} px, use memory in proportion to the field size, and give the "
        "same values for a field cropped at another position: this graph fails for all "
        f"of these strides ({reason})."
    )
    raise CheckpointError(msg, code="model-unsuitable")


def _check_sizes(network: OnnxNetwork, smallest: int) -> None:
    """Measure the scale on a small field and check it on larger fields."""
    stride = network.stride
    output = network(torch.zeros(1, 1, smallest, smallest))
    scale, left = divmod(int(output.shape[2]), smallest)
    if left or not 1 <= scale <= _LARGEST_SCALE:
        msg = f"for {smallest} x {smallest} px it returns "
        msg += (
            f"{output.shape[2]} x {output.shape[3]}, not 1 to {_LARGEST_SCALE} pixels "
            "per input pixel along each axis"
        )
        raise RuntimeError(msg)
    network.scale = scale
    for rows, columns in ((1, 1), (1, 2), (3, 1)):
        shape = (smallest + stride * rows, smallest + stride * columns)
        output = network(torch.zeros(1, 1, *shape))
        if output.shape[2:] != tuple(n * scale for n in shape):
            msg = f"for {shape} px it returns {tuple(output.shape[2:])}"
            raise RuntimeError(msg)


def _is_shift_invariant(network: OnnxNetwork, probe_result: ProbeResult) -> bool:
    """Check that shifting a crop by one stride does not change the inner values.

    Strips are enough, as for the receptive field: their long borders are the same for
    both.
    """
    halo, stride, scale = probe_result.halo or 0, network.stride, network.scale
    side = 2 * halo + probe_result.smallest + round_up(_MIN_CORE, stride)
    across = round_up(max(probe_result.smallest, _MIN_CORE), stride)
    strip = torch.rand(
        1, 1, side + stride, across, generator=torch.Generator().manual_seed(0)
    )
    inner = slice((halo + stride) * scale, (side - halo) * scale)
    shifted_part = slice(halo * scale, (side - halo - stride) * scale)
    for field in (strip, strip.transpose(2, 3).contiguous()):
        axis = 2 if field is strip else 3
        with torch.no_grad():
            first = network(field.narrow(axis, 0, side)).movedim(axis, 0)[inner]
            second = network(field.narrow(axis, stride, side)).movedim(axis, 0)[
                shifted_part
            ]
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
            f"{card.name} first analyses haze, noise and blur of the whole field, "
            "which cannot be expressed in ONNX: export the network for one field "
            "(`field`), without haze removal."
        )
        raise CheckpointError(msg, code="export-unsupported")
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


def _choose_field_size(stride: int) -> int:
    """Return a small field size that is large enough for every layer."""
    return max(64, 2 * stride)


def _trace_network(whole: nn.Module, card: ModelCard) -> bytes:
    """Trace a network on a field, and write it as ONNX."""
    side = _choose_field_size(card.stride)
    field = torch.rand(1, 1, side + 1, side + 3)
    buffer = io.BytesIO()
    axes = {
        "input": {0: "batch", 2: "height", 3: "width"},
        "output": {0: "batch", 2: "output_height", 3: "output_width"},
    }
    try:
        with warnings.catch_warnings():
            # warnings about deprecation and untraceable sizes
            warnings.simplefilter("ignore")
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
    except Exception as error:  # errors of the exporter, and any error of a layer
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"{card.name} cannot be written as ONNX: {first.rstrip('.')}."
        raise CheckpointError(msg, code="export-unsupported") from error
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


def _check_outputs(data: bytes, whole: nn.Module, card: ModelCard) -> None:
    """Check that ONNX Runtime and torch agree on fields of several sizes."""
    network = OnnxNetwork(card.scale, card.stride, data=data).eval()
    side, rng = _choose_field_size(card.stride), torch.Generator().manual_seed(0)
    for rows, columns in _TEST_MARGINS:
        field = torch.rand(1, 1, side + rows, side + columns, generator=rng)
        with torch.no_grad():
            ours, theirs = whole(field).numpy(), network(field).numpy()
        spread = max(float(np.ptp(ours)), float(field.max() - field.min()))
        off = float(np.abs(ours - theirs).max()) / spread
        if not off <= _SPAN:
            msg = (
                f"{card.name} cannot be exported: the outputs of ONNX Runtime and "
                f"torch differ by {off:.1e} of the range on {side + rows} x "
                f"{side + columns} px, more than the allowed {_SPAN:g}."
            )
            raise CheckpointError(msg, code="export-inexact")
