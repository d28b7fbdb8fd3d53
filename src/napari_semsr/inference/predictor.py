"""Network on a device, mapping grey-value windows to enhanced windows."""

import copy
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import platformdirs
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from napari_semsr import core, models
from napari_semsr.inference import ensemble
from napari_semsr.inference.network_input import Scaling
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io import write_atomically

# Device and precision.

_logger = logging.getLogger(__name__)


def resolve_precision(name: str, device: torch.device) -> str:
    """Resolve a precision name for a device."""
    if name == "auto":
        return "bf16" if models.has_fast_bf16(device) else "fp32"
    if name == "bf16":
        models.check_bf16_support(device)
    elif name != "fp32":  # as in the history of a resumed result
        msg = f"Precision must be auto, fp32 or bf16, got {name!r}."
        raise core.OptionError(msg, code="unknown-value")
    return name


def _choose_precision(
    model: models.LoadedModel, name: str, device: torch.device
) -> str:
    """Return the precision for a network, which may support only fp32."""
    precision = resolve_precision(name, device)
    alone = getattr(_unwrap_ensemble(model.module), "single_precision", False)
    return "fp32" if alone else precision


def get_network_details(
    options: EnhanceOptions, model: models.LoadedModel
) -> dict[str, object]:
    """Return network and device details to record in a result's history.

    They are ``model_name`` and ``model_digest``, ``device`` with the name of the CPU or
    GPU, ``precision``, and the number of CPU ``threads``.
    """
    device = choose_device(model, options.device).device
    return {
        "model_name": model.card.name,
        "model_digest": model.digest,
        "device": f"{device}: {models.get_device_name(device)}",
        "precision": _choose_precision(model, options.precision, device),
        "threads": torch.get_num_threads(),
    }


@contextmanager
def _convert_torch_errors(device: torch.device, what: str) -> Iterator[None]:
    """Convert torch errors to package errors, since Qt threads lose `RuntimeError`."""
    try:
        with models.convert_memory_errors(device, what):
            yield
    except RuntimeError as error:
        msg = (
            f"The network could not compute {what} on {device}: "
            f"{models.get_first_error_line(error)}"
        )
        raise core.SemsrError(msg, code="computation-failed") from error


# Kinds of device that we could not test are compared with the CPU before `auto` uses
# them: Metal and XPU kernels have returned wrong values without an error. The network
# itself is tested, since networks have different layers. The result is cached for one
# version of PyTorch, of this package and of the network, and one name of a device.
_UNTESTED_KINDS = ("mps", "xpu")
_TOLERANCE = 1e-3  # of the output's range: a quarter of one of 255 grey levels


def choose_device(model: models.LoadedModel, name: str = "auto") -> models.Device:
    """Choose the device for a network from a device name.

    Like `find_device`, but ``auto`` does not use a device whose result for a test tile
    differs from that of the CPU, or which raises an error; the note says so.
    """
    device = models.find_device(name)
    source = _get_tile_network(model)
    if getattr(source, "opaque", False) and device.device.type != "cpu":
        note = f"{model.card.name} is an ONNX graph, which runs on the CPU."
        return models.Device(
            torch.device("cpu"), core.Message(note, "device-unsuitable")
        )
    if name != "auto" or device.device.type not in _UNTESTED_KINDS:
        return device
    kind = device.device.type
    label = f"{kind} ({models.get_device_name(device.device)})"
    try:
        fault = measure_once(
            source,
            f"fault on {label}",
            _FAULT,
            lambda: _find_device_fault(model, device),
        )
    except core.DeviceMemoryError:  # memory may be free next time
        fault = "has no memory for a tile"
    if fault is None:
        return device
    note = (
        f"{label} {fault}: the CPU is used instead; set `device={kind}` to override "
        "this."
    )
    return models.Device(torch.device("cpu"), core.Message(note, "device-unusable"))


def _find_device_fault(
    model: models.LoadedModel, device_found: models.Device
) -> str | None:
    """Describe how a test tile on a device differs from the CPU, or return None."""
    module, stride = _unwrap_ensemble(model.module), model.card.stride
    side = core.round_up(
        max(
            _SAMPLE,
            models.find_minimum_field_size(_get_tile_network(model), stride=stride),
        ),
        stride,
    )
    tile = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # with Wiener filters, as for a field
        if isinstance(module, models.InformedRestorer):
            look_result = module.analyse_field(tile)
            module = module.build_restorer(
                look_result.condition[0], look_result.rings[0]
            )
        expected_output = run_on_device(module, tile, torch.device("cpu"))
        try:
            output = run_on_device(module, tile, device_found.device)
        except core.DeviceMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - of whatever kind, it is of no use
            reason = models.get_first_error_line(error)
            return f"fails on a test tile ({reason})"
    if output.shape != expected_output.shape:
        return "gives a test tile another shape than the CPU"
    span = float(expected_output.max() - expected_output.min()) or 1.0
    apart = float((output - expected_output).abs().max()) / span
    if apart <= _TOLERANCE:  # also false for NaN
        return None
    return (
        f"gives values that differ from those of the CPU ({apart:.2g} of the range of "
        "a test tile)"
    )


def run_on_device(module: nn.Module, tile: Tensor, device: torch.device) -> Tensor:
    """Run a network on a tile (1, 1, Y, X) on a device, in fp32."""
    with models.convert_memory_errors(device, "a test tile"):
        output: Tensor = copy_to_device(module, device)(tile.to(device))
        return output.to("cpu", torch.float32)


def copy_to_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Copy a network to a device, in the memory layout that suits it."""
    module_copy = copy.deepcopy(module).eval().requires_grad_(False).to(device)
    module_in_layout: nn.Module = module_copy.to(
        memory_format=models.get_memory_layout(device)
    )  # type: ignore[call-overload]
    return module_in_layout


def _get_tile_network(model: models.LoadedModel) -> nn.Module:
    """Return the network that runs on tiles, without its whole-image pass."""
    module = model.module
    return _unwrap_ensemble(
        module.local if isinstance(module, models.InformedRestorer) else module
    )


# Memory of a pass, estimated in advance.
#
# Every tensor that is alive in a pass over a small window is counted; memory is
# proportional to the area of a window. The pass is a real one: on torch's meta device,
# which has shapes but no numbers, even a rectifier imports torch's compiler. That takes
# seconds, and also imports triton, whose LLVM conflicts with that of Mesa: a process
# with an OpenGL window ends with a segmentation fault.


class _MemoryCounter(TorchFunctionMode):
    """Counter of the bytes held by live tensors.

    Calls are intercepted in Python, since doing so in torch's core imports its
    compiler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: weakref.WeakSet[object] = weakref.WeakSet()

    def _release(self, size: int) -> None:
        self.live -= size

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages.add(storage)
            size = storage.nbytes()
            self.live += size
            weakref.finalize(storage, self._release, size)
        self.peak = max(self.peak, self.live)


def measure_peak_bytes(module: nn.Module, shape: core.IntPair) -> int:
    """Measure the peak activation memory of an fp32 pass, in bytes."""
    activation_bytes = getattr(module, "activation_bytes", None)
    if activation_bytes is not None:  # for a network whose layers are not torch's
        return int(activation_bytes(shape))
    window = torch.zeros(1, 1, *shape)
    with torch.no_grad(), _MemoryCounter() as mode:
        mode.add(window)
        module(window)
    return int(mode.peak)


# Measured properties of a network, cached for the next start.
#
# Measuring a receptive field takes seconds, and it does not change. The results are in
# the user's cache folder, in a file named by a digest of the network itself: its
# weights, its structure and its code. The values on a card never replace a measurement,
# since anybody may have written them.

_METHOD = 2  # increase it when a measurement changes
_LARGEST = 2**20  # largest file of measurements that is read, bytes; chosen
_SAMPLE = 128  # px
_T = TypeVar("_T")
_PROBE: TypeAdapter[models.ProbeResult] = TypeAdapter(models.ProbeResult)
_HALO: TypeAdapter[int] = TypeAdapter(int)
_FAULT: TypeAdapter[str | None] = TypeAdapter(str | None)
_BYTES: TypeAdapter[float] = TypeAdapter(float)
# file, or None for a network that exists only here, and its entries
_measured: weakref.WeakKeyDictionary[
    nn.Module, tuple[Path | None, dict[str, object]]
] = weakref.WeakKeyDictionary()


def cache_folder() -> Path:
    """Return the folder of cached measurements."""
    folder_name = os.environ.get("SEMSR_CACHE")
    return (
        Path(folder_name)
        if folder_name
        else platformdirs.user_cache_path("napari-semsr", appauthor=False)
    )


def compute_network_digest(module: nn.Module) -> str:
    """Return a digest of everything that may affect a network's receptive field."""
    digest = hashlib.sha256()
    versions = torch.__version__, importlib.metadata.version("napari-semsr"), _METHOD
    digest.update(repr((versions, module)).encode())
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(repr((name, plain.dtype, tuple(plain.shape))).encode())
        digest.update(memoryview(plain.view(-1).view(torch.uint8).numpy()))
    names = {type(part).__module__ for part in module.modules()}
    files = (
        getattr(sys.modules.get(name), "__file__", None)
        for name in names
        if name.split(".")[0] != "torch"
    )
    # the source files of its classes
    paths = {Path(name) for name in files if name and Path(name).is_file()}
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure_once(
    network: nn.Module, key: str, form: TypeAdapter[_T], measure: Callable[[], _T]
) -> _T:
    """Return a property of a network from the cache, or measure and store it."""
    if network not in _measured:
        name = f"{compute_network_digest(network)}.json"
        path = cache_folder() / "networks" / name
        _measured[network] = path, _read_measurements(path)
    file, entries = _measured[network]
    if key in entries:
        try:
            return form.validate_python(entries[key])
        except ValidationError:
            _logger.info("A cached measurement is invalid and will be repeated.")
    result = measure()
    entries[key] = form.dump_python(result, mode="json")
    if file is None:
        return result
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as partial:
            values = {**_read_measurements(file), **entries}
            partial.write_text(json.dumps(values), encoding="utf-8")
    except OSError as error:
        _logger.info("Measurements are not cached: %s", error)
    return result


def _read_measurements(path: Path) -> dict[str, object]:
    """Read a measurement file, treating a damaged file as missing."""
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


# A network on a device.

_SHARE = 0.9  # share of the free memory that a run may use; chosen
_LARGEST_BATCH = 8  # tiles in one pass; chosen
_KERNEL_SHARE = 1.25  # memory of a pass over that of its layers' outputs; chosen
_FILTERED_STEP = 4  # pixels per tap of a packed Wiener filter


class Predictor:
    """A network on a device.

    It may be called from several threads. The loaded model itself is not changed.
    """

    def __init__(
        self,
        model: models.LoadedModel,
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.card = model.card
        self.digest = model.digest
        self.device, self.note = choose_device(model, device)
        self.precision = _choose_precision(model, precision, self.device)
        self.batch: int | None = None
        self.statistics: ensemble.Statistics | None = None
        self._moments: tuple[ensemble.Statistics | None, list[ensemble.Moments]] = (
            None,
            [],
        )
        module = model.module
        if isinstance(module, models.InformedRestorer):
            module = module.local
        self.source = _get_tile_network(model)  # the original network, on the CPU
        with _convert_torch_errors(self.device, "the weights"):
            self._module = copy_to_device(module, self.device)

    def create_field_predictor(self, model: models.LoadedModel) -> "Predictor":
        """Create a predictor for a network configured for one image by a survey.

        It has the same layers, and so the same receptive field.
        """
        predictor = Predictor(model, device=str(self.device), precision=self.precision)
        # in memory only, as the cache would grow with every field
        _measured.setdefault(predictor.source, (None, {}))
        predictor.__dict__["probe"] = self.probe
        predictor.batch = self.batch
        return predictor

    @cached_property
    def probe(self) -> models.ProbeResult:
        """Measured halo, number of live norms and smallest input side, cached."""
        source, stride = self.source, self.card.stride
        probe_result = measure_once(
            source,
            f"probe, stride {stride}",
            _PROBE,
            lambda: models.probe_network(source, stride=stride),
        )
        stated_field = self.card.receptive_field
        if stated_field and stated_field != (probe_result.halo or 0):
            _logger.warning(
                "The model card of %s states a receptive field of %d px, but %s were "
                "measured; the measurement is used.",
                self.card.name,
                stated_field,
                "no bounds" if probe_result.halo is None else f"{probe_result.halo} px",
            )
        return probe_result

    def effective_probe(self, tolerance: float | None) -> models.ProbeResult:
        """Return the probe result with a halo sufficient for a given tolerance."""
        exact = self.probe
        if tolerance is None or exact.halo is None:
            return exact
        source, how = self.source, {"stride": self.card.stride, "halo": exact.halo}
        halo = measure_once(
            source,
            f"effective halo, stride {self.card.stride}, exact {exact.halo}, "
            f"tolerance {tolerance:g}",
            _HALO,
            lambda: models.measure_effective_halo(source, **how, tolerance=tolerance),
        )
        filters = getattr(self.source, "filters", None)
        if filters is not None:  # unknown before a survey, so excluded from probing
            reach = filters.shape[-1] // 2 * _FILTERED_STEP
            halo = min(exact.halo, halo + core.round_up(reach, self.card.stride))
        return replace(exact, halo=halo)

    @property
    def network(self) -> nn.Module:
        """Network on its device, without the self-ensemble wrapper."""
        return _unwrap_ensemble(self._module)

    @contextmanager
    def compute_context(self, what: str) -> Iterator[None]:
        """Set up a computation: disable gradients, set precision, convert errors."""
        is_mixed = self.precision == "bf16"
        with (
            _convert_torch_errors(self.device, what),
            _lock_launches(self.device),
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=is_mixed),
        ):
            yield

    def add_layer_check(
        self, check: Callable[[], None], *, probing: bool = False
    ) -> Callable[[], None]:
        """Call a function, which may raise an error, before each network layer.

        `probing` includes the original network, which is the one probed, and may be
        used by other runs at the same time. Returns a function that removes the check.
        """

        def run_check(_module: nn.Module, context: object) -> None:
            check()

        handles = [
            part.register_forward_pre_hook(run_check)
            for network in (self._module, *([self.source] if probing else []))
            for part in network.modules()
            if not any(part.children())
        ]

        def remove_hooks() -> None:
            for handle in handles:
                handle.remove()

        return remove_hooks

    def release_memory(self) -> None:
        """Return the memory that is kept between passes."""
        models.release_memory(self.device)
        getattr(self.network, "release_memory", lambda: None)()

    def peak_bytes(self, shape: core.IntPair) -> int:
        """Estimate the memory required for one window, in bytes."""
        return int(self.bytes_per_pixel * math.prod(shape))

    @property
    def bytes_per_pixel(self) -> float:
        """Memory per pixel of a large window, in bytes."""
        source, stride = self.source, self.card.stride

        def measure() -> float:
            network = copy.deepcopy(source)
            smallest = models.find_minimum_field_size(network, stride=stride)
            side = core.round_up(max(_SAMPLE, smallest), stride)
            return measure_peak_bytes(network, (side, side)) / side**2

        key = f"bytes per pixel, stride {stride}"
        return _KERNEL_SHARE * measure_once(source, key, _BYTES, measure)

    def memory_budget(self, memory_gb: float | None) -> int:
        """Return a run's memory limit in bytes, by default most of the free memory."""
        if memory_gb is not None:
            return int(memory_gb * 1e9)
        return int(_SHARE * models.get_free_memory(self.device))

    def fits_in_memory(
        self, shape: core.IntPair, memory_gb: float | None = None
    ) -> bool:
        """Return whether a window fits into the memory limit or the free memory."""
        return self.peak_bytes(shape) <= self.memory_budget(memory_gb)

    def choose_batch(self, shape: core.IntPair, wanted_count: int | None) -> None:
        """Choose the number of windows per pass."""
        if self.device.type == "cpu":
            self.batch = 1
        elif wanted_count is not None:
            self.batch = wanted_count
        else:
            need = 2 * max(1, self.peak_bytes(shape))
            room = models.get_free_memory(self.device) // need
            self.batch = max(1, min(_LARGEST_BATCH, int(room)))

    def predict(
        self,
        windows: Sequence[core.RealArray],
        scaling: Scaling,
        keep: core.Box | None = None,
    ) -> list[core.Float32Array]:
        """Enhance windows (Y, X), or their parts `keep`, to (Y * scale, X * scale).

        Windows of equal shape are run in batches that fit into memory.
        """
        outputs: list[core.Float32Array] = []
        alike = len({window.shape for window in windows}) == 1
        while len(outputs) < len(windows):
            size = (self.batch or 1) if alike else 1
            some = windows[len(outputs) : len(outputs) + size]
            try:
                outputs += self._run_batch(some, scaling, keep)
            except core.DeviceMemoryError:
                if len(some) == 1:
                    raise
                # another thread may have halved it too
                self.batch = min(self.batch or 1, size // 2)
        return outputs

    def _run_batch(
        self,
        windows: Sequence[core.RealArray],
        scaling: Scaling,
        keep: core.Box | None,
    ) -> list[core.Float32Array]:
        planes = [scaling.normalise(window) for window in windows]
        stack = (planes[0][None] if len(planes) == 1 else np.stack(planes))[:, None]
        rows, columns = stack.shape[2:]
        what = f"{len(windows)} window(s) of {rows}x{columns} px"
        with self.compute_context(what):
            batch = models.to_device(stack, self.device)
            if isinstance(self._module, ensemble.SelfEnsemble):
                output = self._module(batch, keep, self._statistics_context)
            else:
                with self._statistics_context():
                    output = ensemble.run_network(self._module, batch, keep)
            arrive = _start_host_copy(output[:, 0])
            del batch, output
        with _convert_torch_errors(self.device, what):
            result = arrive()  # meanwhile the next pass may be launched
        output_shape = (rows, columns) if keep is None else keep.shape
        check_scale(self.card, output_shape, result.shape[1:])
        return [scaling.restore(plane) for plane in result]

    def _statistics_context(self) -> AbstractContextManager[object]:
        """Return a context in which live norms use the given statistics."""
        if self.statistics is None:
            return nullcontext()
        if self._moments[0] is not self.statistics:  # a copy waits for computations
            there = ensemble.move_to_device(self.statistics, self.device)
            self._moments = self.statistics, there
        return ensemble.FixedMoments(self._moments[1])


# Passes on a GPU are launched one at a time, so that its memory has to hold the layers
# of only one, and are queued there: while one is computed, another thread reads, copies
# and launches the next one, or writes the previous one.

_launching = threading.RLock()


@contextmanager
def _lock_launches(device: torch.device) -> Iterator[None]:
    """Launch passes one at a time, with full-precision convolutions."""
    if device.type == "cpu":
        yield
        return
    with _launching, use_fp32_convolutions():
        yield


@contextmanager
def use_fp32_convolutions() -> Iterator[None]:
    """Compute GPU convolutions in true fp32, always with the same algorithm.

    By default cuDNN computes fp32 convolutions in TF32, which has 10 bits; Lightning
    and others let it benchmark algorithms, which may select a different one each time,
    and takes seconds for each new shape. Both settings are global, so they are
    restored; only one thread may use this at a time.
    """
    cudnn: Any = torch.backends.cudnn
    holder, name, value = cudnn, "allow_tf32", cast("Any", False)
    try:
        before = holder.allow_tf32
    except RuntimeError:  # set through the new interface of PyTorch 2.9
        holder, name, value = cudnn.conv, "fp32_precision", "ieee"
        before = holder.fp32_precision
    benchmark_before = cudnn.benchmark
    try:
        setattr(holder, name, value)
        cudnn.benchmark = False
        yield
    finally:
        setattr(holder, name, before)
        cudnn.benchmark = benchmark_before


def _start_host_copy(values: Tensor) -> Callable[[], core.Float32Array]:
    """Start copying values to a float32 array; return a function to await the copy."""
    if values.device.type != "cuda":
        host_array: core.Float32Array = values.to("cpu", torch.float32).numpy()
        return lambda: host_array
    exact = values.float()
    host_buffer = torch.empty(exact.shape, pin_memory=True)
    host_buffer.copy_(exact, non_blocking=True)
    copy_event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copy_event.record(torch.cuda.current_stream(values.device))

    def wait_for_copy() -> core.Float32Array:
        copy_event.synchronize()
        host_values: core.Float32Array = host_buffer.numpy()
        return host_values

    return wait_for_copy


def check_scale(
    card: models.ModelCard, input_size: core.IntPair, output_size: tuple[int, ...]
) -> None:
    """Raise a `CheckpointError` if the output size contradicts the card's scale."""
    expected_size = (input_size[0] * card.scale, input_size[1] * card.scale)
    if output_size != expected_size:
        msg = (
            f"According to its model card, {card.name} must return {expected_size} px "
            f"for {input_size} px, but it returned {output_size} px; correct the scale "
            "in the card."
        )
        raise core.CheckpointError(msg, code="card-contradicts-network")


def _unwrap_ensemble(module: nn.Module) -> nn.Module:
    """Return the network inside a self-ensemble, or any other network unchanged."""
    return module.networks[0] if isinstance(module, ensemble.SelfEnsemble) else module
