"""A field in several versions, measured against what it should look like."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_semsr import inference
from napari_semsr.analysis import (
    FrcMap,
    FrcResult,
    Metrics,
    RadialSpectrum,
    match_affine,
    measure_agreement,
    measure_frc,
    measure_metrics,
    part_errors,
    psnr_gain,
    radial_spectrum,
)
from napari_semsr.core import FloatArray, Job, Micrograph
from napari_semsr.jobs import (
    ENHANCE,
    FRC_MAP,
    EnhancedFile,
    FrcMapJobOptions,
    rewrite,
)

EXPOSURES = "two_exposures"
"""Role of the map of local resolution that needs nothing to compare with."""

WIENER = "Wiener filter"
"""Label of what `wiener` makes."""

_TILE_PX = 256
_MAP_STEP = 16


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the field, measured against the aim."""

    label: str  # in tables and legends
    image: Micrograph  # with the gain and offset that bring it nearest to the aim
    metrics: Metrics
    # None for the aim itself
    cross: FrcResult | None  # against the aim
    spectrum: RadialSpectrum
    errors: FloatArray | None  # squared errors of parts of the field, summed

    def gain_over(self, other: "Version") -> tuple[float | None, float | None]:
        """Tell how much nearer in PSNR it is to the aim, and the standard error."""
        if self.errors is None or other.errors is None:
            return None, None
        return psnr_gain(self.errors, other.errors)


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """All figures of one field."""

    versions: tuple[Version, ...]  # as taken, as restored, and at last the aim
    pair: FrcResult | None  # of two exposures, which needs no aim
    pair_label: str
    maps: dict[str, tuple[str, FrcMap]]  # by role: what is compared, local resolution
    data_range: float  # grey levels from black to white

    @property
    def before(self) -> Version:
        """The field as it was taken."""
        return self.versions[0]

    @property
    def after(self) -> Version:
        """The field as the last of the methods restores it."""
        return self.versions[-2]

    @property
    def aim(self) -> Version:
        """What the field should look like."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class Half:
    """One field: its figures, and what the last enhancement wrote and cost."""

    measured: FieldFigures
    made: EnhancedFile


def enhance_by_tiles(image: Path, output: Path, model: str | Path) -> Job[EnhancedFile]:
    """Enhance an image by tiles that are small enough to be several."""
    options = inference.EnhanceOptions(tile=_TILE_PX)
    return ENHANCE.anew(image, output, model=model, options=options)


def measure_field(
    images: Mapping[str, Micrograph],
    *,
    again: tuple[str, Micrograph] | None = None,
    mapped: Mapping[str, str],
    data_range: float = 255.0,
) -> Job[FieldFigures]:
    """Measure versions of one field, on one grid, against the last of them."""
    aim = list(images)[-1]

    def version(label: str) -> Version:
        image, target = images[label], images[aim]
        if label == aim:
            alone = measure_metrics(image, data_range=data_range)
            spectrum = radial_spectrum(image)
            return Version(label, image, alone, None, spectrum, None)
        gain, offset = match_affine(image.array(), target.array())
        matched = image.replace(data=(image.array() * gain + offset).astype(np.float32))
        return Version(
            label,
            matched,
            measure_metrics(matched, target, data_range=data_range),
            measure_agreement(matched, target),
            radial_spectrum(matched),
            part_errors(matched.array(), target.array()),
        )

    first = next(iter(images.values()))
    maps: dict[str, tuple[str, FrcMap]] = {}
    alone = FrcMapJobOptions(step=_MAP_STEP, register=False)
    if again is not None:
        made = yield from FRC_MAP.job(first, again[1], options=alone)
        maps[EXPOSURES] = again[0], made.result
    against = alone.replace(reference=True)
    for role, label in mapped.items():
        made = yield from FRC_MAP.job(images[label], images[aim], options=against)
        maps[role] = f"{label} and {aim.replace('Truth', 'truth')}", made.result
    return FieldFigures(
        tuple(version(label) for label in images),
        None if again is None else measure_frc(first, again[1]),
        "" if again is None else again[0],
        maps,
        data_range,
    )


def wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore by scikit-image's unsupervised Wiener filter, told the blur's sigma."""
    # Orieux, Giovannelli, Rodet, J. Opt. Soc. Am. A 27, 1593 (2010)
    from skimage.restoration import unsupervised_wiener

    from napari_semsr.simulation import gaussian_kernel  # imports scipy.signal

    data = np.asarray(image.array(), dtype=np.float64)
    low = float(data.min())
    span = max(float(data.max()) - low, 1e-12)
    kernel = gaussian_kernel(sigma_px, 2 * max(1, round(3 * sigma_px)) + 1)
    restored, _ = unsupervised_wiener((data - low) / span, kernel, clip=False, rng=0)
    grey = (restored * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def write_maps(measured: FieldFigures, paths: dict[str, Path], half: str) -> None:
    """Write the maps of local resolution."""
    for role, (_, found) in measured.maps.items():
        rewrite(found.map, paths[f"{half}_{role}"])
