"""Local resolution: the Fourier ring correlation of every block of a field.

`measure_frc_map`

1. plans the correlation (`FrcPlan`), and the grid of blocks;
2. correlates the blocks strip by strip, so that memory is bounded for fields of any
   size, each strip in batches and threads;
3. tests all blocks together for shared noise, as single ones may be too small;
4. creates the map. Blocks without a crossing remain NaN and have a reason; filling them
   keeps both.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.analysis.frc.blocks import Measurement
from napari_semsr.analysis.frc.correlation import FrcOptions, FrcPlan
from napari_semsr.analysis.frc.rings import BATCH_PX, RingSums, plan_geometry
from napari_semsr.analysis.frc.validity import (
    MINIMUM_SIDE,
    REASONS,
    Reason,
    get_reason_code,
    has_plateau,
)

# Side of a block of a pair, and of the halves of a single one, px. For pairs with a
# crossing at 4.187 px the plain curve gave 3.95 ± 0.33 px in blocks of 48, 4.13 ± 0.19
# in 64, 4.20 ± 0.13 in 128.
_PAIR_BLOCK = 64


class _BlockOptions(core.Options):
    """Size and spacing of blocks, which a form shows before the other options."""

    block: int | None = core.option(
        None,
        "Block",
        "Block side length in px; by default 64, or 128 for a single image.",
        unit="px",
        step=16,
        ge=16,
    )
    # 16: chosen, a quarter of a block; denser maps only take more time, since
    # neighbours share most of their pixels
    step: int = core.option(
        16,
        "Step",
        "Distance between neighbouring blocks in px; smaller steps give a smoother "
        "map.",
        unit="px",
        step=8,
        ge=1,
    )
    blocks_per_axis: int | None = core.option(
        None,
        "",
        "Number of adjacent, non-overlapping blocks along the shorter side of the "
        "image; overrides block and step.",
        ge=1,
    )


class FrcMapOptions(FrcOptions, _BlockOptions):
    """Options for an FRC map; those of the correlation are in `FrcOptions`."""

    fill: Literal["none", "nearest"] = core.option(
        "none",
        "Failed blocks",
        "Fill value for blocks without a resolution, which remain marked as failed.",
        choices={"leave empty": "none", "fill from nearest": "nearest"},
        group=core.MORE,
    )


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """Number of blocks and percentiles of their resolution; None if all failed."""

    blocks: int
    failed: int
    p10: float | None
    median: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class FrcMap:
    """Map of local resolution with one value per block, as arrays (Y, X)."""

    # Resolution in `unit`, filled if requested; its pixel size is the step, its origin
    # the centre of the first block
    map: core.Micrograph
    # The same before filling; NaN without a crossing
    measured_values: core.Float32Array
    # 0 if there is a crossing, otherwise the index in `reason_names` plus one
    reasons: NDArray[np.uint8]
    # Standard deviation of the resolution's logarithm in each block
    relative_sd: core.Float32Array
    block: int
    step: int
    unit: str
    method: str
    # Reason found with all blocks pooled, as single blocks may be too small to show
    # shared noise
    field_reason: str | None = None
    reason_names: tuple[str, ...] = REASONS
    incomplete: int = 0  # Blocks with missing pixels in an image
    # ``(y, x)`` by which the second image was moved
    shift_px: core.FloatPair | None = None
    # Relative error of the pixel size, common to all blocks; 0 if unknown
    size_error: float = 0.0
    # Part of `relative_sd` due to curves that differ from the fitted model (median),
    # common to all blocks
    model_error: float = 0.0
    cut_off_nm: float | None = None  # Optical cut-off
    finest: float = 0.0  # Finest measurable resolution, in `unit`

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.reasons.size)

    @property
    def failed(self) -> int:
        """Number of blocks without a crossing."""
        return int(np.count_nonzero(self.reasons))

    @property
    def reason_counts(self) -> dict[str, int]:
        """Number of failed blocks by reason."""
        counts = np.bincount(self.reasons.ravel(), minlength=len(REASONS) + 1)[1:]
        return {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n}

    def percentile(self, share: float) -> float | None:
        """Return a percentile of the resolutions, in `unit`; None if all failed."""
        finite = self.measured_values[np.isfinite(self.measured_values)]
        return float(np.percentile(finite, share)) if finite.size else None

    @property
    def median_interval(self) -> core.FloatPair | None:
        """95 % interval of the median, in `unit`.

        From the noise of the blocks, of which overlapping ones count in proportion to
        the area of their own, and from common errors: those of the model and the pixel
        size. None if all failed.
        """
        median = self.percentile(50)
        finite = np.isfinite(self.measured_values)
        if median is None:
            return None
        share = min(1.0, (self.step / self.block) ** 2)
        # a median has pi / 2 times the variance of a mean, at most that of one block
        alone = max(math.pi / 2, float(np.count_nonzero(finite)) * share)
        power = np.square(self.relative_sd[finite], dtype=float) - self.model_error**2
        noise = math.sqrt(max(0.0, float(np.mean(power))) * math.pi / 2 / alone)
        error = self.size_error if self.unit == "nm" else 0.0
        spread = math.hypot(noise, self.model_error, error)
        reach = math.exp(core.Z95 * spread)
        return median / reach, median * reach

    def summarise(self, inside: core.BoolArray) -> BlockSummary:
        """Summarise the blocks (Y, X) inside a region."""
        values = self.measured_values[inside]
        finite = values[np.isfinite(values)]
        spread: tuple[float | None, ...] = (None, None, None)
        if finite.size:
            spread = tuple(map(float, np.percentile(finite, (10, 50, 90))))
        return BlockSummary(values.size, values.size - finite.size, *spread)

    def _get_percentile_nm(self, share: float) -> float | None:
        return self.percentile(share) if self.unit == "nm" else None

    @property
    def median_nm(self) -> float | None:
        """Median resolution in nm; None if uncalibrated or if all blocks failed."""
        return self._get_percentile_nm(50)

    @property
    def p10_nm(self) -> float | None:
        """10th percentile of the resolution in nm: the finest blocks."""
        return self._get_percentile_nm(10)

    @property
    def p90_nm(self) -> float | None:
        """90th percentile of the resolution in nm: the coarsest blocks."""
        return self._get_percentile_nm(90)


def measure_frc_map(
    a: core.Micrograph,
    b: core.Micrograph | None = None,
    options: FrcMapOptions | None = None,
    *,
    whole: core.Micrograph | None = None,
    shift_px: core.FloatPair | None = None,
) -> core.Job[FrcMap]:
    """Measure the local resolution of one or two exposures, block by block.

    Images are as in `measure_frc` and may be lazy. The map covers their overlap after
    `b` is moved; with `whole`, it is that of `whole`.
    """
    options = options or FrcMapOptions()
    plan = FrcPlan.from_images(a, b, options, whole, shift_px)
    plan, a, b = plan.prepare(a, b)
    blocks = _plan_blocks(a.shape, options, single=plan.single)
    crossing, spread, misfit = (np.full(blocks.grid, np.nan) for _ in range(3))
    grids = _MapArrays(crossing, spread, misfit, np.zeros(blocks.grid, np.uint8))
    if not plan.is_refused:
        yield from _measure_blocks(grids, (a, b, whole), blocks, plan)
    is_identical = grids.code == get_reason_code("identical")
    shared_reason: Reason | None = None
    if grids.sums is not None:
        side = blocks.block // 2 if plan.single else blocks.block
        geometry = plan_geometry((side, side), plan.pitch, options.tukey)
        # shared noise of all blocks together, as single blocks may be too small
        copies = is_identical.size * min(1.0, (blocks.step / blocks.block) ** 2)
        is_shared = has_plateau(grids.sums, geometry, copies=max(1.0, copies))[0]
        if is_shared and not (options.reference or is_identical.all()):
            shared_reason = "correlated-noise"
        if b is not None and whole is None:
            curve = grids.sums.correlation[0, : geometry.rings.complete]
            plan = plan.check_shared_noise(shared_reason, curve, a.data, b.data)
    if plan.is_refused:
        grids.code[~is_identical] = get_reason_code("not-independent")
        grids.crossing[:] = np.nan
        shared_reason = None
    name = a.name if whole is None else whole.name
    fill = options.fill == "nearest"
    return _create_map(grids, name, blocks, plan, shared_reason, fill=fill)


def _plan_blocks(
    shape: core.IntPair, options: FrcMapOptions, *, single: bool
) -> core.BlockPlan:
    if options.blocks_per_axis is not None:
        side = min(shape) // options.blocks_per_axis
        side -= side % 2 if single else 0
        if side < MINIMUM_SIDE:
            field = f"{shape[0]}x{shape[1]} px"
            most = min(shape) // MINIMUM_SIDE
            if not most:
                msg = (
                    f"A block needs at least {MINIMUM_SIDE} px, but the field has "
                    f"only {field}; use a larger field."
                )
                raise core.OptionError(msg, code="image-too-small")
            msg = (
                f"{options.blocks_per_axis} adjacent blocks do not fit: the field has "
                f"{field}, and a block needs at least {MINIMUM_SIDE} px. Use {most} "
                "or fewer blocks."
            )
            raise core.OptionError(msg, code="too-many-blocks")
        return core.plan_blocks(shape, block=side, step=max(side, 1))
    block = options.block or _PAIR_BLOCK * (2 if single else 1)
    return core.plan_blocks(shape, block=block, step=options.step)


# Memory; chosen: 32 MB of float32 hold a strip, and progress is reported and cancelling
# possible after at most that many blocks.
STRIP_PIXELS = 1 << 23
_STRIP_BLOCKS = 1 << 14


@dataclass(slots=True)
class _MapArrays:
    """Result arrays with one value per block, filled batch by batch."""

    crossing: core.FloatArray
    spread: core.FloatArray
    misfit: core.FloatArray
    code: NDArray[np.uint8]
    sums: RingSums | None = None
    incomplete: int = 0
    under_lens: bool = False  # whether any block was fitted with the cut-off

    def store_batch(
        self, first: int, numbers: NDArray[np.intp], measurement: Measurement
    ) -> None:
        """Store a batch of results; `first` is the index of its strip's first block."""
        for name in ("crossing", "spread", "misfit", "code"):
            getattr(self, name).ravel()[first + numbers] = getattr(measurement, name)
        self.incomplete += int(np.count_nonzero(measurement.incomplete))
        self.under_lens |= bool(measurement.under_lens.any())
        part = measurement.sums.pool()
        self.sums = part if self.sums is None else self.sums + part


def _measure_blocks(
    grids: _MapArrays,
    images: tuple[core.Micrograph, core.Micrograph | None, core.Micrograph | None],
    blocks: core.BlockPlan,
    plan: FrcPlan,
) -> core.Job[None]:
    """Measure all blocks, strip by strip, on all CPU cores."""
    a, b, whole = images
    total = blocks.grid[0] * blocks.grid[1]
    done_count = 0
    # strips of block rows whose pixels fit into the memory for one strip
    fitting = (STRIP_PIXELS // a.shape[1] - blocks.block) // blocks.step + 1
    strip = max(1, min(fitting, _STRIP_BLOCKS // blocks.grid[1]))
    yield core.Progress(0, total, "Reading the field")
    with ThreadPoolExecutor(core.count_available_cores()) as pool:
        for top in range(0, blocks.grid[0], strip):
            rows = top, min(top + strip, blocks.grid[0])
            first, unit = _read_blocks(a, blocks, rows, None)
            # halves and whole need one unit, as their powers are compared
            common = None if whole is None else unit
            others = [
                None if image is None else _read_blocks(image, blocks, rows, common)[0]
                for image in (b, whole)
            ]
            # indices of blocks, in batches that fit into the cache
            size = max(1, BATCH_PX // blocks.block**2)
            count = first.shape[0] * first.shape[1]
            batches = [
                np.arange(k, min(k + size, count)) for k in range(0, count, size)
            ]
            work = partial(_measure_batch, first=first, others=others, plan=plan)
            try:
                for numbers, measurement in zip(
                    batches, pool.map(work, batches), strict=True
                ):
                    grids.store_batch(rows[0] * blocks.grid[1], numbers, measurement)
                    done_count += numbers.size
                    yield core.Progress(done_count, total, "Correlating blocks")
            except GeneratorExit:
                pool.shutdown(cancel_futures=True)
                raise


def _read_blocks(
    m: core.Micrograph, blocks: core.BlockPlan, rows: core.IntPair, unit: float | None
) -> tuple[core.Float32Array, float]:
    """Read the blocks of a strip ``(rows, columns, block, block)``, and their scale.

    The mean of the strip is subtracted in float64. Grey values without a unit are
    scaled to at most 1, since their squares may overflow in single precision; every
    block is standardised anyway.
    """
    y0 = rows[0] * blocks.step
    y1 = (rows[1] - 1) * blocks.step + blocks.block
    pixels = core.read_box(m.data, core.Box(y0, y1, 0, m.shape[1])).astype(np.float64)
    good = np.isfinite(pixels)
    if good.any():
        pixels -= pixels.mean(where=good)
    unit = unit or float(np.abs(pixels).max(where=good, initial=0.0)) or 1.0
    strip = (pixels / unit).astype(np.float32)
    view = sliding_window_view(strip, (blocks.block, blocks.block))
    return view[:: blocks.step, :: blocks.step], unit


def _measure_batch(
    numbers: NDArray[np.intp],
    first: core.Float32Array,
    others: list[core.Float32Array | None],
    plan: FrcPlan,
) -> Measurement:
    places = np.unravel_index(numbers, first.shape[:2])
    partners = (None if other is None else other[places] for other in others)
    return plan.correlate(first[places], *partners)


def _create_map(
    grids: _MapArrays,
    name: str,
    blocks: core.BlockPlan,
    plan: FrcPlan,
    shared_reason: Reason | None,
    *,
    fill: bool,
) -> FrcMap:
    sized_image = plan.size_source
    nm = sized_image.mean_pixel_size_nm
    measured_values = ((nm or 1.0) / grids.crossing).astype(np.float32)
    map_values, finite = measured_values.copy(), np.isfinite(measured_values)
    if fill and finite.any():
        map_values = core.fill_gaps(measured_values, finite)
    method = plan.describe_method(under_lens=grids.under_lens)
    misfit = grids.misfit[np.isfinite(grids.misfit)]
    pitch, unit = sized_image.scale, "px" if nm is None else "nm"
    spacing = (blocks.step * pitch[0], blocks.step * pitch[1])
    y, x = np.add(sized_image.origin, np.multiply(blocks.origin, pitch)).tolist()
    image = core.Micrograph(
        data=map_values,
        pixel_size_nm=None if nm is None else core.parse_pixel_size(spacing),
        name=f"{name} FRC map",
        origin=(y, x),
        spacing_px=spacing if nm is None else (1.0, 1.0),
        metadata={
            "quantity": "resolution",
            "unit": unit,
            "method": method,
            "block_px": blocks.block,
            "step_px": blocks.step,
        },
    )
    return FrcMap(
        map=image,
        measured_values=measured_values,
        reasons=grids.code,
        relative_sd=grids.spread.astype(np.float32),
        block=blocks.block,
        step=blocks.step,
        unit=unit,
        method=method,
        field_reason=shared_reason,
        incomplete=grids.incomplete,
        shift_px=plan.shift,
        size_error=core.compute_length_error(sized_image),
        model_error=float(np.median(misfit)) if misfit.size else 0.0,
        cut_off_nm=plan.cut_off_nm,
        finest=(nm or 1.0) * plan.finest_px,
    )
