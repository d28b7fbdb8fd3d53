"""A network of another program: an ONNX graph that ONNX Runtime runs.

It has the face of a torch network, so that it is tiled, probed, measured and recorded
as any other. The graph itself is its only weight, a row of bytes in the model file. It
runs on the processor, in single precision, whatever the device of the run.
"""

import hashlib
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semsr.core import CheckpointError, SemsrError, ShapeError, round_up
from napari_semsr.models.onnx_graph import OnnxGraph, onnx_library, read_graph
from napari_semsr.models.probing import Probe, probe, smallest_side

_STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # chosen: networks halve, or do not
_EQUAL = 1e-5  # of the range; rounding leaves 1e-6, a grid that is off 4e-5 and more
_COMPARED = 32  # px at the least that are compared; chosen
_MEASURED = 2**30  # bytes of layers that a measurement may take; chosen
_FATAL = 4  # ONNX Runtime's level at which it writes to the terminal
_NO_MEMORY = "alloc"  # what its messages of lacking memory have in common


class _Runner:
    """A checked graph, ready to run; several threads may use it."""

    def __init__(self, data: bytes) -> None:
        self.graph: OnnxGraph = read_graph(data, "The ONNX graph of this model")
        self._session = _session(data)
        self._spreading: Any = None

    def run(self, image: NDArray[np.float32], *, spreading: bool) -> NDArray[Any]:
        """Run one image (1, 1, H, W); errors are those of torch.

        `spreading`: through the graph that lets NaN pass.
        """
        session = self._twin() if spreading else self._session
        try:
            made: NDArray[Any] = session.run(None, {self.graph.input: image})[0]
        except Exception as error:  # ONNX Runtime has a dozen, without a common base
            said = str(error).strip().splitlines() or [type(error).__name__]
            kind = MemoryError if _NO_MEMORY in said[0].lower() else RuntimeError
            raise kind(f"ONNX Runtime: {said[0]}") from error
        return made

    def _twin(self) -> Any:
        if self._spreading is None:
            data = self.graph.spreading()
            if data is None:
                msg = "NaN does not tell how far this graph looks."
                raise ShapeError(msg)
            self._spreading = _session(data)
        return self._spreading


_running: weakref.WeakValueDictionary[str, _Runner] = weakref.WeakValueDictionary()


def _session(data: bytes) -> Any:
    """Make ONNX Runtime ready for a graph that was checked."""
    runtime = onnx_library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.enable_cpu_mem_arena = False  # else it keeps the largest window's memory
    try:
        return runtime.InferenceSession(
            data,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,  # there is no other, and it prints
        )
    except Exception as error:  # as above
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"ONNX Runtime refuses this graph: {first.rstrip('.')}."
        raise CheckpointError(msg) from error


class OnnxNetwork(nn.Module):
    """A graph of one grey image in and one out, from the bytes of an ONNX file.

    `scale`, `stride`: as on a card; the graph does not say its stride.
    """

    graph: Tensor
    # Its layers cannot be watched: no live norms are found, and tiles cannot meet there
    opaque = True
    single_precision = True  # whatever is asked for

    def __init__(self, scale: int = 1, stride: int = 1, *, data: bytes = b"") -> None:
        super().__init__()
        stated: tuple[object, object] = (scale, stride)  # a file may say anything
        if not all(isinstance(n, int) and 1 <= n <= 1024 for n in stated):
            msg = f"scale and stride must be whole numbers, got {scale!r}, {stride!r}"
            raise ValueError(msg)
        self.scale, self.stride = scale, stride
        stored = np.frombuffer(data, dtype=np.uint8).copy()
        self.register_buffer("graph", torch.from_numpy(stored))
        self._runner: _Runner | None = None
        self._spread = False
        self.most_bytes: int | None = None  # more than layers of a window may need

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        """Take a graph of any length."""
        given = state.get(f"{prefix}graph")
        if given is not None and given.dtype == torch.uint8 and given.dim() == 1:
            self.graph = torch.empty_like(given)
        super()._load_from_state_dict(state, prefix, *rest)
        self._runner = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be copied or sent."""
        return {**self.__dict__, "_runner": None}

    def runner(self) -> _Runner:
        """Check the graph and make it ready, once in a process."""
        if self._runner is None:
            data = self.graph.cpu().numpy().tobytes()
            key = hashlib.sha256(data).hexdigest()
            found = _running.get(key) or _Runner(data)
            _running[key] = self._runner = found
        return self._runner

    def spreading(self) -> "OnnxNetwork":
        """Give a network of the same reach, and other values, that lets NaN through."""
        made = OnnxNetwork(self.scale, self.stride)
        made.graph, made._spread = self.graph, True
        made.most_bytes = self.most_bytes
        return made

    def activation_bytes(self, shape: tuple[int, int]) -> int:
        """Estimate the bytes of layers that a pass over a window holds at its peak."""
        return int(self.runner().graph.bytes_per_pixel * shape[0] * shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Run images one by one, since a graph may know no batches.

        `x` (B, 1, H, W), on any device; gives (B, 1, H * scale, W * scale) on it.
        """
        if x.device.type == "meta":
            rows, columns = (n * self.scale for n in x.shape[2:])
            return x.new_empty((x.shape[0], 1, rows, columns))
        rows, columns = x.shape[2:]
        if self.most_bytes is not None:
            needed = self.activation_bytes((rows, columns))
            if needed > self.most_bytes:
                msg = f"{rows} x {columns} px need {needed} of {self.most_bytes} bytes"
                raise RuntimeError(msg)
        planes = x.detach().to("cpu", torch.float32).contiguous().numpy()
        run = self.runner().run
        made = [run(plane[None], spreading=self._spread) for plane in planes]
        result = np.concatenate(made)
        if result.ndim != 4 or result.shape[1] != 1 or result.dtype != np.float32:
            msg = f"it gave {result.dtype} of shape {result.shape}, not (B, 1, H, W)"
            raise RuntimeError(msg)
        return torch.from_numpy(result).to(x.device)


# What the graph of others does not say: on which grid it works, and how far it looks.


def measure_onnx(
    data: bytes, *, stride: int | None = None
) -> tuple[OnnxNetwork, Probe]:
    """Make a network of a graph that `read_graph` took, and measure stride and reach.

    The stride of its card is taken if it fits: the least for which fields of all its
    multiples go through, and a field that is cut one stride further gives the same. The
    halo is measured as of other networks.
    """
    scale = OnnxNetwork(data=data).runner().graph.scale
    for step in (*(() if stride is None else (stride,)), *_STRIDES):
        network = OnnxNetwork(scale, step, data=data).eval()
        network.most_bytes = _MEASURED  # what takes no field is shown large ones
        try:
            smallest = smallest_side(network, stride=step)
            _check_sizes(network, smallest)
            found = probe(network, stride=step)
            if found.halo is None or _moves_along(network, found):
                network.most_bytes = None
                return network, found
        except (RuntimeError, SemsrError):
            continue
    msg = (
        "A network must take fields whose sides are multiples of 1, 2, 4 ... or "
        f"{_STRIDES[-1]} px, and give the same when they are cut further on: this "
        "graph does for none of them."
    )
    raise CheckpointError(msg)


def _check_sizes(network: OnnxNetwork, smallest: int) -> None:
    """Raise unless fields of a few multiples of the stride go through."""
    stride, scale = network.stride, network.scale
    for rows, columns in ((1, 1), (1, 2), (3, 1)):
        shape = (smallest + stride * rows, smallest + stride * columns)
        made = network(torch.zeros(1, 1, *shape))
        if made.shape[2:] != tuple(n * scale for n in shape):
            msg = f"of {shape} px it makes {tuple(made.shape[2:])}"
            raise RuntimeError(msg)


def _moves_along(network: OnnxNetwork, probed: Probe) -> bool:
    """Tell whether a field that is cut one stride further on gives the same inside.

    Strips do, as for the reach: their long borders are the same for both.
    """
    halo, stride, scale = probed.halo or 0, network.stride, network.scale
    side = 2 * halo + probed.smallest + round_up(_COMPARED, stride)
    across = round_up(max(probed.smallest, _COMPARED), stride)
    strip = torch.rand(
        1, 1, side + stride, across, generator=torch.Generator().manual_seed(0)
    )
    inner = slice((halo + stride) * scale, (side - halo) * scale)
    moved = slice(halo * scale, (side - halo - stride) * scale)
    for field in (strip, strip.transpose(2, 3).contiguous()):
        axis = 2 if field is strip else 3
        with torch.no_grad():
            first = network(field.narrow(axis, 0, side)).movedim(axis, 0)[inner]
            second = network(field.narrow(axis, stride, side)).movedim(axis, 0)[moved]
        spread = float(first.max() - first.min()) or 1.0
        if float((first - second).abs().max()) > _EQUAL * spread:
            return False
    return True
