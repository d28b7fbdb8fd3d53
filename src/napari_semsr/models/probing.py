"""Measured properties of a network: live normalisations and receptive field."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_semsr import core

# Instance norms that take their statistics from the image itself.
#
# They are the only operations of a loadable network that depend on a whole image, and
# are found by the called function, not by class. Norms with running statistics act on
# single pixels and are excluded. A network with another global operation has no bounded
# receptive field and is run whole.


_SIGNATURE = inspect.signature(functional.instance_norm)


@dataclass(frozen=True, slots=True)
class InstanceNormCall:
    """Arguments of a normalisation call on an image ``(B, C, H, W)``."""

    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


class NormInterceptor(TorchFunctionMode):
    """Interceptor that replaces and counts live norms in the entering thread."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def _normalise(self, norm: InstanceNormCall) -> Tensor:
        """Return the replacement for the norm's output; the input by default."""
        return norm.input

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Replace a norm that uses the image's own statistics; run other calls."""
        run = partial(func, *args, **(kwargs or {}))
        if func is not functional.instance_norm:
            return run()
        bound = _SIGNATURE.bind(*args, **(kwargs or {}))
        bound.apply_defaults()
        given = bound.arguments
        live = given["use_input_stats"] or given["running_mean"] is None
        if not live or given["input"].dim() != 4:
            return run()
        names = ("input", "weight", "bias", "eps")
        result = self._normalise(InstanceNormCall(*(given[name] for name in names)))
        self.count += 1
        return result


# Receptive field of a network, measured by the spread of NaN.
#
# Half of a field is filled with NaN up to a multiple of the stride; every output pixel
# that becomes NaN in the other half depends on that side. This detects every tap, also
# those with tiny weights, and does not depend on the weights. Live normalisations are
# replaced by the identity, since they would spread NaN everywhere. It is done in fp32:
# bf16 kernels in channels_last order leak NaN into their neighbours. Operations that
# remove NaN (``torch.where``, ``nan_to_num``) hide such dependence.

_FIRST_SIDE = 512  # px; in smaller fields the taps of dilated layers may be outside
_LAST_SIDE = 4096  # largest probed side; chosen
_MAGNITUDES = (0.1, 1.0, 10.0)  # magnitudes of fields for measuring changes
_LARGEST_MINIMUM = 64  # largest minimum side, in strides
_LAST_MINIMUM = 1024  # px; chosen: a network that rejects these rejects all fields


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Measured network properties for tiling."""

    # Context for a tile, a multiple of the stride: the receptive field and one pixel
    # more, so that both tiles at a border predict the pixels on either side of it. None
    # if every output depends on the whole field
    halo: int | None
    norms: int  # Live normalisations in one pass
    smallest: int  # Smallest side, a multiple of the stride, that the network accepts


def _copy_to_cpu(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("cpu", torch.float32).eval()


def find_minimum_field_size(module: nn.Module, *, stride: int) -> int:
    """Find the smallest side, a multiple of the stride, that a network accepts."""
    network = module.eval()
    multiples = (1, 2, 4, 8, 16, 32, _LARGEST_MINIMUM)
    sides = [n * stride for n in multiples if n == 1 or n * stride <= _LAST_MINIMUM]
    for side in sides:
        try:
            with torch.no_grad():
                network(torch.zeros(1, 1, side, side))
        except (RuntimeError, ValueError):
            continue
        return side
    msg = (
        "A network must accept fields with sides in multiples of its stride, but this "
        f"network (stride {stride}) failed for all up to {sides[-1]} px."
    )
    raise core.CheckpointError(msg, code="model-unsuitable")


def _find_nan_outputs(
    module: nn.Module, shape: tuple[int, ...], axis: int, start: int, length: int
) -> Tensor:
    """Find which outputs become NaN if a part of a field is NaN."""
    field = torch.zeros(shape)
    field.narrow(axis, start, length).fill_(torch.nan)
    with torch.no_grad(), NormInterceptor():
        output: Tensor = module(field)
    return output.isnan()


def _find_changed_outputs(
    module: nn.Module, shape: tuple[int, ...], axis: int, start: int, length: int
) -> Tensor:
    """Find which outputs change if a part of a field changes.

    For networks whose layers may suppress NaN. Values of both signs and three
    magnitudes are tried, with different mean and spread, so that neither a rectifier
    nor a maximum over the field hides them.
    """
    has_changed = torch.zeros(1, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    for size in _MAGNITUDES:
        one = size * torch.randn(shape, generator=rng)
        other = one.clone()
        part = other.narrow(axis, start, length)
        part.copy_(3 * size * torch.randn(part.shape, generator=rng) + size)
        with torch.no_grad():
            before, after = module(one), module(other)
        same = (before == after) | (before.isnan() & after.isnan())
        has_changed = has_changed | ~same
    return has_changed


def measure_receptive_field(module: nn.Module, *, stride: int) -> int:
    """Measure the distance in pixels over which the input affects an output."""
    if getattr(module, "deciding", False):
        msg = "The receptive field of a graph that decides by values is unknown."
        raise core.ShapeError(msg, code="receptive-field-unbounded")
    module_copy = _copy_to_cpu(module)
    across = find_minimum_field_size(module_copy, stride=stride)
    side = core.round_up(max(_FIRST_SIDE, 4 * across), stride)
    opaque = getattr(module_copy, "opaque", False)
    spread_of = _find_changed_outputs if opaque else _find_nan_outputs
    while side <= _LAST_SIDE:
        reach, middle = 0, core.round_up(side // 2, stride)
        for axis in (2, 3):  # NaN values or changes spread in four directions
            shape = (1, 1, side, across) if axis == 2 else (1, 1, across, side)
            for start, length in ((0, middle), (middle, side - middle)):
                spread = spread_of(module_copy, shape, axis, start, length)
                scale = spread.shape[axis] // side
                edge, hit = middle * scale, spread.any(1).any(4 - axis)[0]
                far = (hit[edge:] if start == 0 else hit[:edge].flip(0)).nonzero()
                distance = int(far.max()) + 1 if far.numel() else 0
                reach = max(reach, -(-distance // scale))
        if reach < side // 2 - stride:
            return reach
        side *= 2
    msg = (
        "A network for tiled inference must have a bounded receptive field, but this "
        f"network's outputs depend on inputs more than {_LAST_SIDE // 2} px away."
    )
    raise core.ShapeError(msg, code="receptive-field-unbounded")


def probe_network(module: nn.Module, *, stride: int) -> ProbeResult:
    """Measure all properties of a single-channel network needed for tiling."""
    module_copy = _copy_to_cpu(module)
    smallest = find_minimum_field_size(module_copy, stride=stride)
    with torch.no_grad(), NormInterceptor() as mode:
        module_copy(torch.zeros(1, 1, smallest, smallest))
    try:
        reach = measure_receptive_field(module, stride=stride)
        halo: int | None = core.round_up(reach + 1, stride)
    except core.ShapeError:
        halo = None
    return ProbeResult(halo, mode.count, smallest)


# Effective receptive field: the halo that suffices for a given tolerance.
#
# The exact receptive field of a deep network is much wider than the part that changes
# its output noticeably. Here a field is changed beyond a line, and the change of the
# output behind the line is measured against the output's range: the effective field
# ends where this is below the tolerance. Gradients are a first-order estimate, but
# their sum decreases faster than the change by real contents, which would give halos
# that are too narrow.

_TRIALS = 2  # noise fields used for probing; chosen
_TOLERANCES = (0.01, 0.001)  # tolerances of the effective receptive field; chosen
_WIDEST = 256  # largest effective field probed; chosen


def measure_effective_halo(
    module: nn.Module, *, stride: int, halo: int, tolerance: float
) -> int:
    """Measure the halo beyond which the input has little effect on the output.

    In input pixels, a multiple of the stride, at most the exact halo of `probe`. The
    tolerance is the largest allowed change, over the range of the output. Noise with
    structure at several scales represents real images, and live normalisations are
    omitted, as for the exact field.
    """
    module_copy = _copy_to_cpu(module)
    across = find_minimum_field_size(module_copy, stride=stride)
    side = 2 * core.round_up(halo + across, stride)
    rng = torch.Generator().manual_seed(0)
    reach = 0
    for _ in range(_TRIALS):
        for axis in (2, 3):
            shape = (side, across) if axis == 2 else (across, side)
            one, other = (_generate_noise(shape, rng) for _ in range(2))
            for low in (True, False):
                change = _measure_change(module_copy, one, other, axis=axis, low=low)
                far = (change > tolerance).nonzero()
                scale = 2 * len(change) // side
                reach = max(reach, -(-(int(far.max()) + 1) // scale) if len(far) else 0)
    return min(halo, core.round_up(reach, stride))


def measure_effective_fields(
    module: nn.Module, *, stride: int, halo: int | None
) -> dict[str, int]:
    """Measure a network's effective receptive field for its model card.

    Input pixels for tolerances of 0.01 and 0.001; empty if the exact halo is unbounded,
    or above 256 px, which takes too long.
    """
    if halo is None or halo > _WIDEST:
        return {}
    measure = partial(measure_effective_halo, module, stride=stride, halo=halo)
    return {f"{limit:g}": measure(tolerance=limit) for limit in _TOLERANCES}


def _generate_noise(shape: core.IntPair, rng: torch.Generator) -> Tensor:
    """Generate values in [0, 1] with structure at several scales."""
    total = torch.zeros(1, 1, *shape)
    for step in (1, 4, 16):
        coarse = torch.rand(1, 1, *(-(-n // step) for n in shape), generator=rng)
        fine = coarse.repeat_interleave(step, 2).repeat_interleave(step, 3)
        total += fine[..., : shape[0], : shape[1]]
    return total / 3


def _measure_change(
    module: nn.Module, one: Tensor, other: Tensor, *, axis: int, low: bool
) -> Tensor:
    """Compute the relative output change as a function of distance from a line."""
    half = one.shape[axis] // 2
    mixture = one.clone()
    start = 0 if low else half
    mixture.narrow(axis, start, half).copy_(other.narrow(axis, start, half))
    with torch.no_grad(), NormInterceptor():
        before, after = module(one), module(mixture)
    spread = (before.max() - before.min()).clamp_min(torch.finfo(before.dtype).tiny)
    largest: Tensor = ((after - before).abs() / spread).amax(dim=(0, 1, 5 - axis))
    middle = len(largest) // 2
    return largest[middle:] if low else largest[:middle].flip(0)
