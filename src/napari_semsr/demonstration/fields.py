"""A field in several versions, measured against what it should look like."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_semsr.analysis import (
    FrcMap,
    FrcMapOptions,
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
from napari_semsr.io import write
from napari_semsr.jobs import EnhancedFile, enhance_job, frc_map_job

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
        """Tell by how many dB it is nearer to the aim, and the standard error."""
        if self.errors is None or other.errors is None:
            return None, None
        return psnr_gain(self.errors, other.errors)


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """All figures of one field.

    Attributes
    ----------
    versions : tuple of Version
        The field as it was taken, as methods restore it, and at last the aim: what all
        of them are compared with.
    pair : FrcResult or None
        FRC of two exposures, which needs no aim.
    pair_label : str
        What the exposures are called.
    maps : dict
        Local resolution by role: what is compared, and the map.
    data_range : float
        Grey levels from black to white.
    """

    versions: tuple[Version, ...]
    pair: FrcResult | None
    pair_label: str
    maps: dict[str, tuple[str, FrcMap]]
    data_range: float

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

    def named(self, label: str) -> Version:
        """Find a version by its label.

        Parameters
        ----------
        label : str
            As tables have it.

        Returns
        -------
        Version
            The version.
        """
        return next(item for item in self.versions if item.label == label)


@dataclass(frozen=True, slots=True)
class Half:
    """One field: its figures, and what the last enhancement wrote and cost."""

    measured: FieldFigures
    made: EnhancedFile


def enhance_by_tiles(image: Path, output: Path, model: str | Path) -> Job[EnhancedFile]:
    """Enhance an image by tiles that are small enough to be several."""
    from napari_semsr.inference import EnhanceOptions

    options: Any = {"options": EnhanceOptions(tile=_TILE_PX), "overwrite": True}
    return (yield from enhance_job(image, output, model=model, **options))


def measure_field(
    images: Mapping[str, Micrograph],
    *,
    again: tuple[str, Micrograph] | None = None,
    mapped: Mapping[str, str],
    data_range: float = 255.0,
) -> Job[FieldFigures]:
    """Measure versions of one field, on one grid, against the last of them.

    `images` by their labels; `again`, what two exposures are called and the second one
    of the first image; `mapped`, which versions are compared with the aim block by
    block, by role. The aim is taken for free of noise, which asks for the higher
    threshold.
    """
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
    if again is not None:
        alone = FrcMapOptions(step=_MAP_STEP)
        made = yield from frc_map_job(first, again[1], register=False, options=alone)
        maps[EXPOSURES] = again[0], made.result
    against = FrcMapOptions(step=_MAP_STEP, reference=True)
    for role, label in mapped.items():
        made = yield from frc_map_job(
            images[label], images[aim], register=False, options=against
        )
        maps[role] = f"{label} and {aim.replace('Truth', 'truth')}", made.result
    return FieldFigures(
        tuple(version(label) for label in images),
        None if again is None else measure_frc(first, again[1]),
        "" if again is None else again[0],
        maps,
        data_range,
    )


def wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore an image by scikit-image's unsupervised Wiener filter.

    The filter must be told the width `sigma_px` of the Gaussian blur. The strength of
    the regularisation is sampled, not given (Orieux, Giovannelli, Rodet, J. Opt. Soc.
    Am. A 27, 1593 (2010), doi:10.1364/JOSAA.27.001593); its draws are seeded.
    """
    from skimage.restoration import unsupervised_wiener

    from napari_semsr.simulation import gaussian_kernel

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
        write(found.map, paths[f"{half}_{role}"], overwrite=True)
