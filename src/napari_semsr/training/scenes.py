"""Training scenes: degraded clear images or simulated instrument pairs.

Item ``i`` depends only on the seed and ``i``, so that a resumed run sees the same data
as an uninterrupted one, whatever the number of workers.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from napari_semsr import core, models, simulation
from napari_semsr.io import read
from napari_semsr.training.recipe import DataOptions, ImageEntry, Recipe, ScanEntry

Pair = tuple[core.Float32Array, core.Float32Array]
_TRAINING = 5  # random stream of training samples
_SHADING_PX = 8.0  # sigma; smoother variations are shading, not noise; chosen


class _SimulatedInstrument:
    """Base class of simulated instruments with pairs determined by seed and index."""

    def __init__(self, recipe: Recipe, scale: int) -> None:
        self.data, self.seed, self.scale = recipe.data, recipe.seed, scale


class Superlens(_SimulatedInstrument):
    """Simulated superlens and SEM pairs; consecutive pairs share one sample."""

    pixel_nm = simulation.SsumPairOptions().pixel_nm
    _LOOKS = 4  # pairs made of one sample; chosen

    _sample = -1
    _pairs: Sequence[simulation.SsumPair] = ()

    def pair(self, place: int) -> Pair:
        """Return a pair, each image with its own grey-value scale."""
        image_pair = self._get_image_pair(place)
        return image_pair.low, image_pair.high

    def scene(self, place: int) -> simulation.DegradedScene:
        """Return a pair as a scene, with the faults of its microscope."""
        image_pair = self._get_image_pair(place)
        low, noiseless = image_pair.low, image_pair.noiseless
        noise = low - noiseless
        noise = noise - ndimage.gaussian_filter(noise, _SHADING_PX)  # without shading
        blur = math.log(image_pair.blur_px + core.NO_BLUR)
        known_faults = {
            "noise": math.log(float(noise.std()) + core.NO_NOISE),
            "blur_rows": blur,
            "blur_columns": blur,
            "slant": 0.0,
        }
        values = [known_faults.get(name, np.nan) for name in core.FAULTS]
        faults, still = np.array(values, np.float32), np.zeros_like(low)
        return simulation.DegradedScene(
            low, noiseless, image_pair.high, still, float(low.mean()), faults
        )

    def _get_image_pair(self, place: int) -> simulation.SsumPair:
        """Return the simulated pair at an index; consecutive pairs share one sample."""
        sample, look = divmod(place, self._LOOKS)
        if sample != self._sample:
            rng = np.random.default_rng([self.seed, sample, _TRAINING])
            side, ranges = self.data.scene_px, self.data.superlens
            pairs = simulation.simulate_random_ssum_pairs(
                side, rng, ranges, self._LOOKS, scale=self.scale
            )
            self._pairs, self._sample = list(pairs), sample
        return self._pairs[look]

    def validation_pairs(self, count: int) -> list[Pair]:
        """Return fixed pairs of samples that are not used in training."""
        side, ranges = self.data.scene_px, self.data.superlens
        fields = simulation.simulate_validation_pairs(
            count, side, scale=self.scale, options=ranges
        )
        return [(p.low, p.high) for p in fields]


class Gold(_SimulatedInstrument):
    """Gold on carbon at two magnifications; half of the pairs have random options."""

    pixel_nm = simulation.COARSE_NM
    _SCALE = 2  # ratio of the magnifications; chosen

    def pair(self, place: int) -> Pair:
        """Return a pair, both images with the grey-value scale of the degraded one."""
        rng = np.random.default_rng([self.seed, place, _TRAINING])
        return self._simulate_pair(rng, simulation.create_random_gold_options(rng))

    def validation_pairs(self, count: int) -> list[Pair]:
        """Return fixed pairs that are not used in training."""
        rngs = (simulation.create_gold_rng("validation", i) for i in range(count))
        return [self._simulate_pair(rng) for rng in rngs]

    def _simulate_pair(
        self, rng: np.random.Generator, options: simulation.GoldOptions | None = None
    ) -> Pair:
        if self.scale != self._SCALE:
            msg = f"The source gold needs a network of scale 2, got scale {self.scale}."
            raise core.OptionError(msg, code="model-unsuitable")
        pair = simulation.simulate_random_gold_pair(self.data.scene_px, rng, options)
        return pair.low, pair.high


INSTRUMENTS: dict[str, type[Superlens] | type[Gold]] = {
    "superlens": Superlens,
    "gold": Gold,
}


_CORRELATION_PX = (15.0, 120.0)  # of simulated textures; chosen
_SOFTNESS = (0.005, 0.15)  # of simulated edges; chosen
_CONTRAST = (0.25, 1.0)  # of simulated scenes; chosen
_LEVEL = (0.1, 0.9)  # mean grey of simulated scenes; chosen


def blend_scenes(
    first: NDArray[np.floating], second: NDArray[np.floating], rng: np.random.Generator
) -> core.FloatArray:
    """Blend regions of one scene into another, with their own contrast and level."""
    # without such scenes a network learns that low contrast is always haze
    rows, columns = first.shape
    correlation = float(np.exp(rng.uniform(*np.log(_CORRELATION_PX))))
    field = simulation.create_smooth_field((rows, columns), correlation, rng)
    softness = float(np.exp(rng.uniform(*np.log(_SOFTNESS))))
    place = (field - rng.uniform(0.35, 0.65)) / softness
    share = 1 / (1 + np.exp(-np.clip(place, -30, 30)))
    contrast, level = rng.uniform(*_CONTRAST), rng.uniform(*_LEVEL)
    other = level + (second - second.mean()) * contrast
    return np.asarray(np.clip(first * (1 - share) + other * share, 0, 1))


_ZOOMS = (1.0, 1.0, 0.75, 0.5)  # of clear images; chosen
_MAX_NAMED = 5  # small images that a message names; chosen
_MIN_SHARE = 0.55  # of a scene that an image must cover on each axis
PHANTOM_SEED = 1 << 32  # above every training seed


def load_clear_image(root: Path, entry: ImageEntry) -> core.Float32Array:
    """Read a clear image, crop it, and scale its percentiles to 0 and 1."""
    image = read(root / entry.file, colour="luminance").array()
    image = core.mask_fill_values(image, Path(entry.file).name).astype(np.float32)
    if entry.crop_bottom >= image.shape[0]:
        msg = (
            f"crop_bottom must be less than the {image.shape[0]} rows of "
            f"{entry.file}, got {entry.crop_bottom}."
        )
        raise core.OptionError(msg, code="out-of-range")
    image = image[: image.shape[0] - entry.crop_bottom]
    if not np.isfinite(image).all():
        msg = f"The training image {entry.file} has NaN or infinite pixels; remove it."
        raise core.ReadError(msg, code="pixels-missing")
    if entry.shrink > 1:
        from skimage import transform  # a slow import for few images

        sides = [max(1, round(n / entry.shrink)) for n in image.shape]
        image = transform.resize(image, sides, order=1, anti_aliasing=True)
    low, high = np.percentile(image, (0.05, 99.95))
    if high <= low:
        msg = f"The training image {entry.file} is constant; remove it from the recipe."
        raise core.ReadError(msg, code="image-blank")
    unit_range = np.clip((image - low) / (high - low), 0, 1)
    return np.asarray(unit_range, dtype=np.float32)


class SceneBatch(NamedTuple):
    """Scene or batch of scenes with the grey-value scale of the degraded image."""

    low: Tensor  # (1, H, W)
    high: Tensor  # (1, H, W)
    noiseless: Tensor  # (1, H, W), degraded without noise and haze; `high` if unknown
    log_gain: Tensor  # (1, H / 16, W / 16), of the gain that removes haze; block means
    airlight: Tensor  # (1,), grey level of dense haze
    faults: Tensor  # (9,), in the order of `FAULTS`; NaN if unknown
    corners: Tensor  # (P, 2), rows and columns of the corners of patches


class SurveyBatch(NamedTuple):
    """Survey input and targets of a scene or a batch, in blocks of 16 px."""

    statistics: Tensor  # (21, h, w), `SurveyNet.statistics` of the degraded image
    contrast: Tensor  # (1, h, w), mean square of the clear image about the airlight
    log_gain: Tensor  # (1, h, w), as in `SceneBatch`, with what follows
    airlight: Tensor  # (1,)
    faults: Tensor  # (9,)

    @classmethod
    def from_scenes(cls, scenes: SceneBatch, survey: models.SurveyNet) -> Self:
        """Compute the statistics of a batch of scenes."""
        level = scenes.airlight[:, :, None, None]
        return cls(
            survey.compute_statistics(scenes.low.float()),
            functional.avg_pool2d((scenes.high - level).square(), models.BLOCK),
            scenes.log_gain,
            scenes.airlight,
            scenes.faults,
        )


class SceneDataset(Dataset[SceneBatch]):
    """Infinite dataset of random scenes, indexed over the whole run."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.superlens: Superlens | None = None
        if recipe.data.sources.get("superlens"):
            self.superlens = Superlens(recipe, 1)
        root = Path(recipe.data.root)
        clear = [load_clear_image(root, entry) for entry in recipe.data.train]
        _warn_about_small_images(recipe.data, clear)
        self.whole = clear
        self.images = [
            ndimage.zoom(image, zoom, order=1) if zoom < 1 else image
            for image in clear
            for zoom in _ZOOMS
            if min(image.shape) * zoom >= recipe.data.scene_px * _MIN_SHARE
        ]
        self.scans = [
            read_scan_pair(Path(recipe.data.scans_root), entry)
            for entry in recipe.data.scans
            if max(recipe.data.scanned, recipe.data.slow) > 0
        ]
        self.slow: list[core.Float32Array] = []
        for _, high in self.scans if recipe.data.slow > 0 else ():
            edge, (rows, columns) = 0, high.shape
            while not np.isfinite(high[edge : rows - edge, edge : -edge or None]).all():
                edge += 1
            part = high[edge : rows - edge, edge : columns - edge]
            black, white = np.percentile(part, (0.05, 99.95))
            part = (part - black) / max(float(white - black), 1e-6)
            self.slow.append(np.asarray(np.clip(part, 0, 1), dtype=np.float32))

    def __getitem__(self, place: int) -> SceneBatch:
        rng = np.random.default_rng([self.recipe.seed, place])
        recipe, data = self.recipe, self.recipe.data
        if self.superlens is not None:
            scene = self.superlens.scene(place)
        elif recipe.kind != "restorer":
            image = self.sample_clear_image(rng, data.averaged)
            scene = simulation.apply_random_degradation(image, recipe.degradations, rng)
        elif self.scans and rng.random() < data.scanned:
            scene = _crop_scans(self.scans, data.scene_px, rng)
        else:
            image = self._sample_filled_image(rng)
            seed = int(rng.integers(PHANTOM_SEED))
            scene = self._degrade(image, seed)
            # below stronger noise the image's own grain is no detail either
            noise = core.get_noise(scene.faults.tolist())
            if data.averaged and noise > measure_grain(scene.high):
                image = self._sample_filled_image(rng, data.averaged)
                scene = self._degrade(image, seed)
        last = data.scene_px - data.patch_px
        corners = rng.integers(0, last + 1, (data.patches_per_scene, 2))
        px = models.BLOCK
        blocks = data.scene_px // px
        log_gain = scene.log_gain.reshape(blocks, px, blocks, px).mean((1, 3))
        return SceneBatch(
            torch.from_numpy(scene.low[None]),
            torch.from_numpy(scene.high[None]),
            torch.from_numpy(scene.noiseless[None]),
            torch.from_numpy(log_gain[None]),
            torch.tensor([scene.airlight], dtype=torch.float32),
            torch.from_numpy(scene.faults),
            torch.from_numpy(corners),
        )

    def _degrade(self, image: core.Float32Array, seed: int) -> simulation.DegradedScene:
        rng = np.random.default_rng(seed)
        return simulation.apply_random_faults(image, self.recipe.faults, rng)

    def _sample_filled_image(
        self, rng: np.random.Generator, averaged: core.FloatPair | None = None
    ) -> core.Float32Array:
        """Return a random clear scene that is not empty."""
        for _ in range(_TRIES + 1):
            image = self.sample_clear_image(rng, averaged)
            if image.std() >= _MIN_CONTRAST:
                break
        return image

    def sample_clear_image(
        self, rng: np.random.Generator, averaged: core.FloatPair | None = None
    ) -> core.Float32Array:
        """Return a random clear scene, simulated or cut from an image."""
        image = self._create_augmented_image(rng, averaged)
        share = self.recipe.data.patchwork
        if share > 0 and rng.random() < share:
            other = self._create_augmented_image(rng, averaged)
            image = blend_scenes(image, other, rng).astype(np.float32)
        return image

    def _create_augmented_image(
        self, rng: np.random.Generator, averaged: core.FloatPair | None
    ) -> core.Float32Array:
        """Simulate or cut one scene, and augment it."""
        data = self.recipe.data
        side = data.scene_px
        if self.slow and rng.random() < data.slow:
            slow = self.slow[int(rng.integers(len(self.slow)))]
            image = _crop_square(slow, side, rng)
        elif not self.images or rng.random() < data.phantoms:
            kind = simulation.PHANTOMS[int(rng.integers(len(simulation.PHANTOMS)))]
            image = simulation.draw_phantom(
                kind, (side, side), seed=int(rng.integers(PHANTOM_SEED))
            )
        else:
            images = self.images if averaged is None else self.whole
            whole = images[int(rng.integers(len(images)))]
            if averaged is None:
                image = _crop_square(whole, side, rng)
            else:
                image = crop_averaged(whole, side, averaged, rng)
        image = np.rot90(image, int(rng.integers(4)))
        if rng.random() < 0.5:
            image = image[:, ::-1]
        if rng.random() < data.bent:
            image = image ** np.exp(rng.normal(0, 0.3))
        if rng.random() < data.soft:
            sigma = rng.uniform(0.3, data.soft_sigma_px)
            image = ndimage.gaussian_filter(image, sigma)
        return 1 - image if rng.random() < data.inverted else image


def measure_grain(image: core.Float32Array) -> float:
    """Return the deviation of an image's own noise, from frequencies without signal."""
    field = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    power = models.estimate_white_noise_floor(models.compute_power_spectrum(field))
    return math.sqrt(float(power[0]))


class SurveyDataset(Dataset[SurveyBatch]):
    """Dataset of survey inputs and targets for the scenes of `SceneDataset`."""

    def __init__(self, recipe: Recipe) -> None:
        self.scenes, self.survey = SceneDataset(recipe), models.SurveyNet()

    def __getitem__(self, place: int) -> SurveyBatch:
        one = SceneBatch(*(part[None] for part in self.scenes[place]))
        blocks = SurveyBatch.from_scenes(one, self.survey)
        return SurveyBatch(*(part[0] for part in blocks))


def read_scan_pair(
    root: Path, entry: ScanEntry
) -> tuple[core.Float32Array, core.Float32Array]:
    """Read two registered scans; match the slow scan's grey values to the fast one."""
    low, high = (
        read(root / name, colour="luminance").array().astype(np.float64)
        for name in (entry.low, entry.high)
    )
    rows = min(len(low), len(high)) - entry.crop_bottom
    low, high = low[:rows], high[:rows]
    if low.shape != high.shape:
        msg = (
            f"Scans must have the same size, got {entry.low} with "
            f"{core.format_shape(low.shape)} and {entry.high} with "
            f"{core.format_shape(high.shape)}; register them first."
        )
        raise core.OptionError(msg, code="sizes-differ")
    finite = np.isfinite(high)
    # the fast scan is the noisy one, so it is the dependent variable
    gain, offset = np.polyfit(high[finite], low[finite], 1)
    high = gain * high + offset
    bottom, top = np.percentile(low, (0.1, 99.9))
    low, high = (
        (image - bottom) / (float(top - bottom) or 1.0) for image in (low, high)
    )
    return low.astype(np.float32), high.astype(np.float32)


_TRIES = 50
_MIN_CONTRAST = 0.02  # standard deviation, of a range of 1; below, almost empty


def _crop_scans(
    scans: list[tuple[core.Float32Array, core.Float32Array]],
    side: int,
    rng: np.random.Generator,
) -> simulation.DegradedScene:
    """Crop a square from both scans, unrotated because noise correlates along lines."""
    for _ in range(_TRIES):
        low, high = scans[int(rng.integers(len(scans)))]
        y, x = (int(rng.integers(0, max(0, n - side) + 1)) for n in low.shape)
        low, high = (part[y : y + side, x : x + side] for part in (low, high))
        if np.isfinite(high).all() and low.shape == (side, side):
            break
    else:
        msg = (
            f"No pair of scans has a common area of {side} x {side} px; lower "
            "data.scene_px."
        )
        raise core.OptionError(msg, code="image-too-small")
    flips = [slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(2)]
    low, high = (np.ascontiguousarray(part[*flips]) for part in (low, high))
    faults = np.full(len(core.FAULTS), np.nan, np.float32)
    faults[0] = math.log(float((low - high).std()) + core.NO_NOISE)
    still = np.zeros_like(low)
    return simulation.DegradedScene(low, high, high, still, float(low.mean()), faults)


def _warn_about_small_images(data: DataOptions, clear: list[core.Float32Array]) -> None:
    """Warn about images that are too small; raise an error if all are."""
    least = math.ceil(data.scene_px * _MIN_SHARE)
    small = [
        f"{entry.file} ({' x '.join(map(str, image.shape))})"
        for entry, image in zip(data.train, clear, strict=True)
        if min(image.shape) < least
    ]
    if not small or data.phantoms == 1:  # then no image is used
        return
    more = len(small) - _MAX_NAMED
    names = ", ".join(small[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    least_size = f"at least {least} px on each side for scenes of {data.scene_px} px"
    if len(small) == len(clear):
        msg = (
            f"Training images must have {least_size}, got {names}; lower data.scene_px."
        )
        raise core.OptionError(msg, code="image-too-small")
    core.warn(
        f"Training images must have {least_size}; excluded: {names}.",
        "images-left-out",
        stacklevel=3,
    )


_PIXEL_SIGMA = 0.45  # of a coarse pixel: a Gaussian that averages as its square does


def crop_averaged(
    whole: core.Float32Array,
    side: int,
    factors: core.FloatPair,
    rng: np.random.Generator,
) -> core.Float32Array:
    """Crop a random square, reduced by a random factor and turned by a random angle.

    An image that is too small is reduced less and not turned, then padded.
    """
    factor = float(np.exp(rng.uniform(*np.log(factors))))
    factor = max(1.0, min(factor, min(whole.shape) / side))
    angle = rng.uniform(0, 2 * math.pi)
    if side * factor * (abs(math.cos(angle)) + abs(math.sin(angle))) > min(whole.shape):
        angle = 0.0
    along, across = factor * math.cos(angle), factor * math.sin(angle)
    reach = side * (abs(along) + abs(across)) / 2
    middle = [
        rng.uniform(min(reach, n / 2), max(n - reach, n / 2)) for n in whole.shape
    ]
    first = [max(0, int(at - reach - 4 * factor)) for at in middle]
    last = [int(at + reach + 4 * factor) for at in middle]
    part = whole[first[0] : last[0], first[1] : last[1]]
    smooth = ndimage.gaussian_filter(part, _PIXEL_SIGMA * factor * (factor > 1))
    turn = np.array([[along, -across], [across, along]])
    start = np.subtract(middle, first) - 0.5 - turn @ np.full(2, (side - 1) / 2)
    square = ndimage.affine_transform(
        smooth, turn, start, (side, side), order=1, mode="reflect"
    )
    return np.asarray(square, dtype=np.float32)


def _crop_square(
    whole: core.Float32Array, side: int, rng: np.random.Generator
) -> core.Float32Array:
    """Crop a random square; an image that is too small is padded by reflection."""
    y, x = (int(rng.integers(0, max(0, n - side) + 1)) for n in whole.shape)
    part = whole[y : y + side, x : x + side]
    lacking = [(0, side - n) for n in part.shape]
    return np.pad(part, lacking, mode="reflect") if any(map(sum, lacking)) else part
