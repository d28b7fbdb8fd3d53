"""Similarity to the field that a model was trained on; detection of lost focus.

A block is described by its power in bands of spatial frequency, its grey levels and
their contrast, on the scale on which a model works. Pitch, kind of structure, relief
and focus change the bands. The distance to the training field is the mean distance to
its five most similar blocks, each feature divided by its standard deviation there; a
block is *unlike the training field* if its distance exceeds the 98th percentile of the
distances between parts of the training field.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import scipy  # the submodules are loaded lazily
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from napari_semsr import analysis, core

FAMILIARITY = "familiarity"
"""Key in the `training` entry of a model card for the appearance of the training field.
"""
UNLIKE_PERCENT = 30.0
"""Unfamiliar fraction of an image's area above which another model is suggested
(chosen).
"""

BLOCK_PX = 96  # side of a block; chosen: several optical periods
_STEP_PX = 48
_BANDS, _COARSEST_PX = 10, 48.0  # bands of power, and their longest period; chosen
_PERCENTILES = (5, 25, 50, 75, 95)
_NUMBERS = _BANDS + len(_PERCENTILES) + 1  # numbers that describe a block
_NEAREST = 5  # nearest blocks that define the distance; chosen
# Smallest standard deviation, so that nearly constant features do not dominate; chosen.
_FLOOR = 0.05


@dataclass(frozen=True, slots=True)
class BlockFeatures:
    """Block features (M, F) of a field, and the distance limit."""

    looks: core.FloatArray
    spread: core.FloatArray  # (F,)
    limit: float

    @classmethod
    def from_parts(cls, parts: Iterable[core.FloatArray]) -> Self | None:
        """Compute features of gap-free blocks of parts (Y, X); None if too few."""
        looks, places = [], []
        for number, plane in enumerate(parts):
            corners = (range(0, n - BLOCK_PX + 1, _STEP_PX) for n in plane.shape)
            for y, x in itertools.product(*corners):  # overlapping blocks
                block = plane[y : y + BLOCK_PX, x : x + BLOCK_PX]
                if np.isfinite(block).all():
                    looks.append(_compute_features(block))
                    places.append((number * 1e6, y, x))
        if len(looks) <= _NEAREST:
            return None
        table, at = np.array(looks), np.array(places)
        spread = np.maximum(table.std(axis=0), _FLOOR)
        apart = np.abs(at[:, None] - at[None]).max(-1) >= BLOCK_PX
        own = _compute_distances(table, table, spread, apart)
        own = own[np.isfinite(own)]
        if own.size <= len(looks) / 2:  # too few blocks have five others for comparison
            return None
        # percentile of the distances within the training field; chosen
        return cls(table, spread, float(np.percentile(own, 98)))

    def to_json(self) -> dict[str, object]:
        """Return a JSON record for the model card."""
        return {
            "looks": np.round(self.looks, 4).tolist(),
            "spread": np.round(self.spread, 5).tolist(),
            "limit": round(self.limit, 5),
        }

    @classmethod
    def from_model_card(cls, training: Mapping[str, Any]) -> Self | None:
        """Read the record from a model card's `training` entry; None if absent.

        Raises a `CheckpointError` if the record is damaged.
        """
        record = training.get(FAMILIARITY)
        if record is None:
            return None
        try:
            looks, spread = (np.array(record[k], float) for k in ("looks", "spread"))
            familiarity = cls(looks, spread, float(record["limit"]))
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise create_damaged_card_error("its training area") from error
        has_shapes = looks.ndim == 2 and looks.shape[1:] == spread.shape == (_NUMBERS,)
        positive = bool((spread > 0).all()) and familiarity.limit > 0
        finite = all(np.isfinite(v).all() for v in (looks, spread, familiarity.limit))
        if not (has_shapes and len(looks) >= _NEAREST and positive and finite):
            raise create_damaged_card_error("its training area")
        return familiarity

    def compare(
        self,
        data: core.ReadableArray,
        levels: core.FloatPair,
        *,
        as_map: bool = False,
        is_resampled: bool = False,
    ) -> core.Job[core.FloatArray]:
        """Compute the distances (M, N) of an image's blocks, relative to the limit.

        Blocks are adjacent from the first pixel on; NaN for blocks with gaps. If there
        are many blocks, an even sample is used, unless `as_map`. `levels`: grey levels
        that are 0 and 1 to the model; `is_resampled`: whether the image was resampled,
        so that its finest band is attenuated by the kernel and is ignored.
        """
        low, high = levels
        rows, columns = (n // BLOCK_PX for n in data.shape)
        # blocks of an image that are compared without a map; chosen: seconds
        step = 1 if as_map else math.ceil(math.sqrt(rows * columns / 400)) or 1
        places = [range(min(step // 2, n - 1), n, step) for n in (rows, columns) if n]
        if len(places) < 2:  # image smaller than a block
            return np.empty((0, 0))
        distances_over_limit = np.full([len(part) for part in places], np.nan)
        bands = np.arange(_NUMBERS) != _BANDS - 1 if is_resampled else slice(None)
        own = self.looks[:, bands], self.spread[bands]
        for i, row in enumerate(places[0]):
            yield core.Progress(i, len(places[0]), "comparing with the training field")
            for j, column in enumerate(places[1]):
                corner = (row * BLOCK_PX, column * BLOCK_PX)
                box = core.Box.from_shape((BLOCK_PX, BLOCK_PX), corner)
                block = core.read_box(data, box)
                plane = (np.asarray(block, float) - low) / ((high - low) or 1.0)
                if np.isfinite(plane).all():
                    looks = _compute_features(plane)[None, bands]
                    far = _compute_distances(looks, *own)[0]
                    distances_over_limit[i, j] = far / self.limit
        return distances_over_limit


def compute_unfamiliar_percentage(distances: core.FloatArray) -> float | None:
    """Return the percentage of valid blocks that differ from the training field.

    The argument is the result of `BlockFeatures.compare`; None if no block is known.
    """
    finite = distances[np.isfinite(distances)]
    return 100 * float((finite > 1).mean()) if finite.size else None


def create_damaged_card_error(what: str) -> core.CheckpointError:
    """Return the error for a damaged model-card entry."""
    return core.CheckpointError(
        f"The model card entry for {what} is damaged; use another copy of the model "
        "file.",
        code="model-damaged",
    )


def _compute_distances(
    looks: core.FloatArray,
    fields: core.FloatArray,
    spread: core.FloatArray,
    counts: NDArray[np.bool_] | None = None,
) -> core.FloatArray:
    """Return the mean distance to the five nearest blocks selected by `counts`."""
    away = np.sqrt((((looks[:, None] - fields[None]) / spread) ** 2).mean(-1))
    if counts is not None:
        away = np.where(counts, away, np.inf)
    nearest = np.sort(away, axis=1)[:, :_NEAREST]
    return np.asarray(np.where(np.isfinite(nearest), nearest, np.nan).mean(1))


def _compute_features(block: core.FloatArray) -> core.FloatArray:
    """Compute a block's features: log power, percentiles and standard deviation."""
    plane = np.asarray(block, dtype=np.float64)
    window = np.outer(*(np.hanning(n) for n in plane.shape))
    power = np.abs(scipy.fft.rfft2((plane - plane.mean()) * window)) ** 2
    power /= (window**2).sum()
    y = np.fft.fftfreq(plane.shape[0])[:, None]
    x = np.fft.rfftfreq(plane.shape[1])[None]
    edges = np.geomspace(1 / _COARSEST_PX, 0.5, _BANDS + 1)
    band = np.digitize(np.hypot(y, x), edges)
    means = [power[band == number].mean() for number in range(1, _BANDS + 1)]
    grey = [*np.percentile(plane, _PERCENTILES), np.log10(plane.std() + 1e-4)]
    # power below the rounding of 8 bits
    return np.concatenate([np.log10(np.array(means) + 1e-7), grey])


EXPLAINED = "explained"
"""Key in the `training` entry of a model card for `ExplainedDetail` on its held-out
part.
"""

# of the optical cut-off: the finest detail that light shows well; chosen on one
# simulated circuit under 17 instruments
_FINEST = (0.45, 0.8)
_CUT_OFFS_PX = 2.0, 64.0  # chosen: beyond, a block is a thousand pixels wide
_DETAIL_SIDE, _MIN_BLOCKS = 16.75, 4  # periods of the cut-off; chosen: 128 px at 20 nm


@pydantic_dataclass(frozen=True, slots=True)
class ExplainedDetail:
    """Share of the finest detail of an optical image that its SEM image predicts.

    The prediction is that of a network trained from SEM to light. If the image is made
    by another instrument, or at another focus, an enhanced image predicts less of it
    than where the network was trained.

    Attributes
    ----------
    share, error : float
        Share of the variance, and its standard error from half-overlapping blocks.
    cut_off_px : float
        Shortest period that the light transmitted.
    light_range : tuple of float
        Outputs of the network from SEM to light that are 0 and 1 in the image.
    """

    share: FiniteFloat
    error: FiniteFloat
    cut_off_px: Annotated[float, Field(ge=_CUT_OFFS_PX[0], le=_CUT_OFFS_PX[1])]
    light_range: tuple[FiniteFloat, FiniteFloat]

    @classmethod
    def from_planes(
        cls,
        planes: Iterable[tuple[core.RealArray, core.RealArray]],
        cut_off_px: float,
        light_range: core.FloatPair,
    ) -> Self | None:
        """Compare optical images (Y, X) with predictions; None with too few blocks."""
        if not _CUT_OFFS_PX[0] <= cut_off_px <= _CUT_OFFS_PX[1]:
            return None
        side = get_detail_side(cut_off_px)
        axis = np.fft.fftfreq(side) * cut_off_px
        ring = np.hypot(axis[:, None], axis)
        band = (_FINEST[0] <= ring) & (ring < _FINEST[1])
        window = np.outer(*[np.hanning(side)] * 2)
        powers = []  # of the optical image and of the difference
        for light, predicted in planes:
            starts = (range(0, n - side + 1, side // 2) for n in light.shape)
            for y, x in itertools.product(*starts):
                box = np.s_[y : y + side, x : x + side]
                if not np.isfinite(light[box]).all():
                    continue
                parts = light[box].astype(float), (light - predicted)[box].astype(float)
                spectra = (scipy.fft.fft2((p - p.mean()) * window)[band] for p in parts)
                power, missed_power = ((np.abs(one) ** 2).sum() for one in spectra)
                if power > 0:
                    powers.append((power, missed_power))
        if len(powers) < _MIN_BLOCKS:
            return None
        total, missed = np.array(powers).T
        without = 1 - (missed.sum() - missed) / (total.sum() - total)  # each block
        share = 1 - missed.sum() / total.sum()
        error = without.std() * math.sqrt(len(powers) - 1)
        return cls(float(share), float(error), cut_off_px, light_range)

    def is_below(self, place: "ExplainedDetail") -> bool:
        """Check whether the share is surely less than where a model was evaluated."""
        error = math.hypot(self.error, place.error)
        return place.share - self.share > _SURE * error

    @classmethod
    def from_model_card(cls, training: Mapping[str, Any]) -> Self | None:
        """Read the record from a model card's `training` entry; None if absent.

        Raises a `CheckpointError` if the record is damaged.
        """
        try:
            return TypeAdapter(cls | None).validate_python(training.get(EXPLAINED))
        except ValidationError as reason:
            raise create_damaged_card_error("its training area") from reason


def get_detail_side(cut_off_px: float) -> int:
    """Return the side in pixels of the blocks of `ExplainedDetail`."""
    return 2 * round(_DETAIL_SIDE * cut_off_px / 2)


# in units of the optical cut-off; chosen: least and largest loss out of focus, above
# shading and below frequencies hidden by noise
_COARSE, _FINE, _NOISE = (0.05, 0.1), (0.3, 0.6), (1.1, 1.6)
# Falloff in dB, from the transfer function of a lens (tests/analysis/test_focus.py): of
# sharp edges at the depth of focus
_SHARP_EDGES_DB = 32.5
_SURE = 2.0  # standard errors by which a loss must exceed its limit
# side of a block in periods of the cut-off; chosen: two periods of the coarsest detail,
# which the window separates from the mean
_SIDE, _MIN_SIDE = 40.0, 28.0


@dataclass(frozen=True, slots=True)
class Falloff:
    """Falloff from coarse to fine detail in dB, with its standard error."""

    falloff_db: float
    error_db: float

    @classmethod
    def from_image(
        cls, image: core.Micrograph, cut_off_nm: float | None = None
    ) -> Self | None:
        """Measure the falloff of an image (Y, X); None if it cannot be determined.

        That is so without an optical cut-off or a pixel size, if pixels are too coarse
        to separate noise from detail, if a side is less than 42 periods of the cut-off,
        if gaps are everywhere, or without coarse detail above the noise. By default
        `cut_off_nm` is taken from the history.
        """
        cut_off, pixel = analysis.find_cut_off(image, cut_off_nm), image.pixel_size_nm
        if cut_off is None or pixel is None:
            return None
        px = cut_off / math.sqrt(pixel[0] * pixel[1])
        # smallest side of an image over that of a block: four distinct blocks
        side = int(min(_SIDE * px, min(image.shape) / 1.5))
        if side < _MIN_SIDE * px or px < 2 * _NOISE[1]:
            return None
        axes = (np.fft.fftfreq(side, size) for size in pixel)
        ring = np.hypot(*np.meshgrid(*axes, indexing="ij")) * cut_off
        rings = [(low <= ring) & (ring < high) for low, high in (_COARSE, _FINE)]
        quiet = (_NOISE[0] <= ring) & (ring < _NOISE[1])
        window = np.outer(*[np.hanning(side)] * 2)
        powers, noises = [], []
        starts: list[core.FloatArray] = []  # of blocks that overlap by half if possible
        for length in image.shape:
            # blocks along an axis; chosen: half a second
            count = min(5, max(2, math.ceil(2 * (length - side) / side) + 1))
            starts.append(np.linspace(0, length - side, count).round())
        for y, x in itertools.product(*starts):
            box = core.Box.from_shape((side, side), (int(y), int(x)))
            block = np.asarray(core.read_box(image.data, box), dtype=np.float64)
            if np.isfinite(block).all():
                power = np.abs(scipy.fft.fft2((block - block.mean()) * window)) ** 2
                powers.append([power[band].mean() for band in rings])
                noises.append(power[quiet].mean())
        if len(powers) < 4:
            return None
        noise = float(np.mean(noises))
        coarse, fine = (np.array(powers) - noise).T
        # power over that of noise; chosen: then the falloff is measurable
        if not coarse.mean() > 100.0 * noise:
            return None
        # a signal below a tenth of the noise cannot be measured
        fine = fine + max(0.0, 0.1 * noise - float(fine.mean()))
        level, error = analysis.compute_psnr_gain(fine, coarse)
        return None if level is None or error is None else cls(level, error)

    def is_out_of_focus(self) -> bool:
        """Check whether the scan is defocused by more than the depth of focus.

        It is compared with the smoothest sample with sharp edges, at that depth.
        """
        return self.falloff_db - _SURE * self.error_db > _SHARP_EDGES_DB
