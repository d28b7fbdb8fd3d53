"""What the demonstration measures on one field, before it is put on a page."""

from dataclasses import dataclass
from typing import Any

from napari_semsr.analysis import (
    FrcMap,
    FrcMapOptions,
    FrcOptions,
    FrcResult,
    Metrics,
    RadialSpectrum,
    measure_frc,
    measure_metrics,
    radial_spectrum,
)
from napari_semsr.core import Job, Micrograph
from napari_semsr.jobs import frc_map_job

_MAP_STEP = 16


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the field, measured against the truth."""

    label: str  # Name in tables and legends
    image: Micrograph  # The field
    metrics: Metrics  # Against the truth, gain and offset fitted first
    cross: FrcResult | None  # FRC against the truth; None for the truth itself
    spectrum: RadialSpectrum  # Radial power


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """All figures of one field.

    Attributes
    ----------
    degraded, baseline, enhanced, truth : Version
        The field as it was taken, as two methods restore it, and as it is.
    pair : FrcResult
        FRC of two exposures, which needs no truth.
    maps : tuple of FrcMap
        Local resolution: of the exposures, and against the truth before and after.
    pair_label : str
        What the exposures are called.
    data_range : float
        Grey levels from black to white.
    """

    degraded: Version
    baseline: Version
    enhanced: Version
    truth: Version
    pair: FrcResult
    maps: tuple[FrcMap, FrcMap, FrcMap]
    pair_label: str
    data_range: float

    @property
    def versions(self) -> tuple[Version, Version, Version, Version]:
        """All versions in the order of tables."""
        return self.degraded, self.baseline, self.enhanced, self.truth


def measure_field(
    truth: Micrograph,
    first: Micrograph,
    second: Micrograph,
    baseline: Micrograph,
    enhanced: Micrograph,
    *,
    label: str = "Degraded input",
    pair_label: str = "Two exposures",
    data_range: float = 255.0,
) -> Job[FieldFigures]:
    """Measure a field whose truth is known, taken twice and restored twice.

    All images lie on one grid; first and second have independent noise, and baseline
    and enhanced are restorations of the first. In tables `label` names the first and
    `pair_label` both.
    """

    def version(name: str, image: Micrograph) -> Version:
        other = None if image is truth else truth
        match: Any = None if other is None else "affine"
        return Version(
            name,
            image,
            measure_metrics(image, other, data_range=data_range, match=match),
            None
            if other is None
            else measure_frc(image, other, FrcOptions(reference=True)),
            radial_spectrum(image),
        )

    alone = FrcMapOptions(step=_MAP_STEP)
    against = alone.replace(reference=True)
    maps = (
        (yield from frc_map_job(first, second, options=alone)).result,
        (yield from frc_map_job(first, truth, options=against)).result,
        (yield from frc_map_job(enhanced, truth, options=against)).result,
    )
    return FieldFigures(
        version(label, first),
        version("Wiener (scikit-image)", baseline),
        version("Enhanced", enhanced),
        version("Truth", truth),
        measure_frc(first, second),
        maps,
        pair_label,
        data_range,
    )
