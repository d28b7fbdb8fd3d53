"""Misfit: the part of an image that its enhanced version cannot reproduce.

The enhanced image is blurred again as by the microscope, its grey levels are mapped to
those of the input, and both are compared. The residual shows detail that the enhanced
image omits, or adds in contradiction to the optical image.

Blur and map are fitted to the field in one linear least-squares problem: ramps of the
grey levels, each blurred by Gaussians of three widths. Slow shading is removed on both
sides, and noise is subtracted. This freedom is needed: for 40 fields blurred by a
Gaussian, the best monotone map with one Gaussian leaves 57 % of the contrast even for
the true SEM image, noise included. This fit leaves 31 %, and 40 % for the output of a
model of such fields, which ranks outputs like the error below the optical cut-off
(Spearman 0.81, with the monotone map 0.69). Interference in a superlens cannot be
explained by a map of grey levels: for 40 fields as simulated for training, a quarter of
them Gaussian, the true SEM image leaves 42 % (standard error 3 %).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import NDArray

from napari_semsr import core

# side and number of the evenly spaced blocks that are fitted; chosen: 1 s
_SIDE, _FIT_BLOCKS = 256, 16
_RAMPS, _SIGMAS_PX = 4, (1.0, 2.0, 4.5)  # chosen: more would hardly reduce the misfit
_BORDER = 32  # border affected by unread pixels
_PERCENTILES = (0.5, 99.5)
_GAP = 1e-9  # share of a pixel's area that may be missing: rounding
_MAP_BIN = 4  # pixels of the field along a side of one of the map; chosen
_AROUND = 5  # side of the averaging window, in pixels of the map; chosen


@dataclass(frozen=True, slots=True)
class Misfit:
    """Difference between a re-blurred enhanced image and its input image."""

    # mean misfit of true SEM images of 40 superlens fields, simulated as for training
    TRUE_SHARE: ClassVar[float] = 0.42
    TRUE_SD: ClassVar[float] = 0.19  # standard deviation over the 40 fields
    LIMIT: ClassVar[float] = TRUE_SHARE + TRUE_SD

    # standard deviation of the difference over that of the input, both without noise
    share: float
    # standard deviation of the input, and of its noise, in its grey levels
    contrast: float
    noise: float
    bounds: core.FloatPair  # grey levels of the enhanced image that bound the ramps
    weights: core.FloatArray  # weights of the blurred ramps

    @property
    def is_consistent(self) -> bool:
        """Whether the misfit is in the range of true SEM images."""
        return self.share <= self.LIMIT

    @property
    def verdict(self) -> str:
        """Assessment of the misfit, as text."""
        ends = f"{100 * self.TRUE_SHARE:.0f} ± {100 * self.TRUE_SD:.0f} %"
        if self.is_consistent:
            return f"consistent with the input: true SEM images have a misfit of {ends}"
        return (
            f"inconsistent with the input: true SEM images have a misfit of {ends}; "
            "check bright areas of the misfit map"
        )


def measure_misfit(
    before: core.Micrograph, after: core.Micrograph
) -> core.Job[Misfit | None]:
    """Measure the misfit between an enhanced image and its input.

    Both may have any pixel size and may be lazy. Of a block with gaps, the largest
    rectangle without gaps is used. None if nothing can be compared, or the input is
    hardly more than noise.
    """
    grids = core.Grid.from_image(before), core.Grid.from_image(after)
    grid, field = find_common_grid(*grids)
    blocks: list[tuple[core.FloatArray, core.FloatArray]] = []
    boxes = split_into_blocks(field, _FIT_BLOCKS, _SIDE) if field else []
    for number, box in enumerate(boxes):
        yield core.Progress(number, 2 * len(boxes), "blurring the result again")
        both = [
            read_resampled(image, of, grid, box)
            for image, of in zip((before, after), grids, strict=True)
        ]
        finite = np.isfinite(both[0]) & np.isfinite(both[1])
        whole = core.find_gap_free_box(finite, least=2 * _BORDER + 1)
        if whole is not None:
            blocks.append((both[0][whole.slices], both[1][whole.slices]))
    if not blocks:
        return None
    values = np.concatenate([output[::4, ::4].ravel() for _, output in blocks])
    low, high = (float(v) for v in np.percentile(values, _PERCENTILES))
    if high <= low:
        return None
    many = _RAMPS * len(_SIGMAS_PX)
    power, cross, total, count = np.zeros((many, many)), np.zeros(many), 0.0, 0
    for number, (original, output) in enumerate(blocks, start=len(boxes)):
        yield core.Progress(number, 2 * len(boxes), "blurring the result again")
        target_part = _crop_border(_subtract_local_mean(original))
        whole_ramps = _create_ramps(output, (low, high))
        ramps = np.stack([_crop_border(ramp) for ramp in whole_ramps])
        power += ramps @ ramps.T
        cross += ramps @ target_part
        total += float(target_part @ target_part)
        count += target_part.size
    # of a ramp's mean power: regularises similar ramps
    ridge = 1e-5 * np.trace(power) / many * np.eye(many)
    weights = np.linalg.solve(power + ridge, cross)
    left = (total - 2 * weights @ cross + weights @ power @ weights) / count
    noises = [core.estimate_noise_level(original) for original, _ in blocks]
    noise = float(np.median(noises))
    contrast = total / count
    # ratio of contrast to noise variance from which a misfit can be measured
    if contrast < 2.0 * noise**2 or contrast == 0:
        return None
    share = max(float(left) - noise**2, 0.0) / (contrast - noise**2)
    return Misfit(share**0.5, contrast**0.5, noise, (low, high), weights)


def map_misfit(
    before: core.Micrograph, after: core.Micrograph, misfit: Misfit
) -> core.Job[core.Micrograph]:
    """Map the local misfit between an enhanced image and its input.

    In per cent of the contrast, one pixel per 4 x 4 pixels of the coarser image; NaN
    where either has no value.
    """
    grids = core.Grid.from_image(before), core.Grid.from_image(after)
    grid, field = find_common_grid(*grids)
    assert field is not None  # noqa: S101 - something was measured there
    rows, columns = (n // _MAP_BIN for n in field.shape)
    squares = np.full((rows, columns), np.nan)
    boxes = split_into_blocks(field, None, _SIDE)
    for number, box in enumerate(boxes):
        yield core.Progress(number, len(boxes), "mapping the misfit")
        wide_box = box.grow(_BORDER).intersection(field)
        original, output = (
            read_resampled(image, of, grid, wide_box)
            for image, of in zip((before, after), grids, strict=True)
        )
        finite = np.isfinite(original) & np.isfinite(output)
        if not finite.any():
            continue
        original, output = (
            np.where(finite, p, p[finite].mean()) for p in (original, output)
        )
        left = _subtract_local_mean(original)
        ramps = _create_ramps(output, misfit.bounds)
        for weight, ramp in zip(misfit.weights, ramps, strict=True):
            left = left - weight * ramp  # excluding the unreliable border
        square = np.where(finite, left**2, np.nan)
        means = compute_block_means(square[box.relative_to(wide_box).slices], _MAP_BIN)
        y, x = (v // _MAP_BIN for v in (box.y0 - field.y0, box.x0 - field.x0))
        squares[y : y + means.shape[0], x : x + means.shape[1]] = means
    finite = np.isfinite(squares)
    local_mean = scipy.ndimage.uniform_filter(np.where(finite, squares, 0.0), _AROUND)
    share = scipy.ndimage.uniform_filter(finite.astype(float), _AROUND)
    smooth = np.where(finite, local_mean / np.maximum(share, 1e-9), np.nan)
    rest = np.maximum(smooth - misfit.noise**2, 0)
    percent = 100 * np.sqrt(rest) / (misfit.contrast**2 - misfit.noise**2) ** 0.5
    # the centre of the first pixel is that of 4 x 4 pixels of the grid
    away = [(_MAP_BIN - 1) / 2 * pitch for pitch in grid.pitch]
    down, across = (o + a for o, a in zip(grid.box_origin(field), away, strict=True))
    has_size = before.pixel_size_nm is not None
    pitches = [_MAP_BIN * pitch for pitch in grid.pitch]
    return core.Micrograph(
        percent.astype(np.float32),
        core.parse_pixel_size(pitches) if has_size else None,
        f"misfit of {before.name} (%)",
        origin=(down, across) if has_size else (0.0, 0.0),
        look=core.DisplaySettings(
            limits=(0.0, 100.0),
            colormap="magma",
            interpolation="linear",
            colour_bar=True,
        ),
    )


def _create_ramps(
    image: core.FloatArray, bounds: core.FloatPair
) -> list[core.FloatArray]:
    """Split grey levels into ramps, blur each at every width and remove slow trends."""
    low, high = bounds
    level = np.clip((image - low) / (high - low), 0, 1) * _RAMPS
    return [
        _subtract_local_mean(
            scipy.ndimage.gaussian_filter(np.clip(level - step, 0, 1), sigma)
        )
        for sigma in _SIGMAS_PX
        for step in range(_RAMPS)
    ]


def _subtract_local_mean(image: core.FloatArray) -> core.FloatArray:
    """Subtract the local mean."""
    # side of a box mean: slower changes are shading; chosen
    return np.asarray(image - scipy.ndimage.uniform_filter(image, 51))


def _crop_border(image: core.FloatArray) -> core.FloatArray:
    """Crop the image border and flatten the remaining pixels."""
    return image[_BORDER:-_BORDER, _BORDER:-_BORDER].ravel()


# Both images on the grid of the coarser pixels, block by block: the finer one is
# averaged over the area of each coarse pixel.


def find_common_grid(
    first: core.Grid, second: core.Grid
) -> tuple[core.Grid, core.Box | None]:
    """Return the coarser of two image grids, and the overlap on that grid.

    With equal pixel sizes, the grid of the first is used. The overlap is in pixels of
    that grid; None if the images do not overlap.
    """
    coarser = any(b > 1.01 * a for a, b in zip(first.pitch, second.pitch, strict=True))
    grid, other = (second, first) if coarser else (first, second)
    return grid, grid.covered_box(other)


def split_into_blocks(field: core.Box, most: int | None, side: int) -> list[core.Box]:
    """Split a field into blocks row by row; return at most `most`, evenly spaced.

    Blocks at the far borders may be smaller than `side` pixels.
    """
    boxes = [
        core.Box(y, min(y + side, field.y1), x, min(x + side, field.x1))
        for y in range(field.y0, field.y1, side)
        for x in range(field.x0, field.x1, side)
    ]
    if most is None or len(boxes) <= most:
        return boxes
    places = np.linspace(0, len(boxes) - 1, most)
    return [boxes[round(float(place))] for place in places]


def read_resampled(
    image: core.Micrograph, own_grid: core.Grid, grid: core.Grid, box: core.Box
) -> core.FloatArray:
    """Read a box of a coarser grid by averaging image pixels.

    Returns means over the areas of the coarse pixels; NaN if much of a pixel is
    missing.
    """
    inner = grid.to_box(own_grid)
    if inner is not None:
        return core.read_box(image.data, box.move(inner.corner)).astype(np.float64)
    spans, edges = [], []
    for axis, (start, stop) in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
        corner = (grid.corner[axis] - own_grid.corner[axis]) / own_grid.pitch[axis]
        ratio = grid.pitch[axis] / own_grid.pitch[axis]
        places = corner + np.arange(start, stop + 1) * ratio
        first = max(0, int(np.floor(places[0])))
        last = min(own_grid.shape[axis], int(np.ceil(places[-1])))
        spans.append((first, last))
        edges.append(np.clip(places - first, 0, last - first))
    area = core.Box(*spans[0], *spans[1])
    values = core.read_box(image.data, area).astype(np.float64)
    finite = np.isfinite(values)
    if finite.all():
        return _compute_area_means(values, edges)
    means = _compute_area_means(np.where(finite, values, 0.0), edges)
    means[_compute_area_means(finite.astype(np.float64), edges) < 1 - _GAP] = np.nan
    return means


def compute_block_means(image: core.RealArray, side: int) -> NDArray[Any]:
    """Average an image (Y, X) over square blocks, ignoring incomplete ones."""
    return np.asarray(core.reshape_into_blocks(image, side).mean(axis=(1, 3)))


def _compute_area_means(
    values: core.FloatArray, edges: list[core.FloatArray]
) -> core.FloatArray:
    """Average values over the cells between edges, one axis at a time."""
    for axis, places in enumerate(edges):
        first, side = round(places[0]), round(places[1] - places[0])
        even = first + side * np.arange(len(places))
        if np.abs(places - even).max() < _GAP:  # whole pixels: six times as fast
            lines = np.moveaxis(values, axis, 0)[first : even[-1]]
            total = sum(lines[n::side] for n in range(1, side)) + lines[::side]
            values = np.moveaxis(total / side, 0, axis)
            continue
        sums = np.insert(np.cumsum(values, axis=axis), 0, 0.0, axis=axis)
        whole = np.minimum(places.astype(int), values.shape[axis] - 1)
        shape = (-1, 1) if axis == 0 else (1, -1)
        rest = (places - whole).reshape(shape)
        at = sums.take(whole, axis=axis) + rest * values.take(whole, axis=axis)
        values = np.diff(at, axis=axis) / np.diff(places).reshape(shape)
    return values
