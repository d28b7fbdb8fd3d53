"""What the demonstration measures on one field, before it is put on a page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from napari_semsr.analysis import (
    FrcMap,
    FrcMapOptions,
    FrcOptions,
    FrcResult,
    Metrics,
    RadialSpectrum,
)
from napari_semsr.core import Job, Micrograph

_MAP_STEP = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One field whose truth is known, taken twice and restored twice.

    Attributes
    ----------
    truth : Micrograph
        The specimen.
    first, second : Micrograph
        Two images of it with independent noise, all on the same grid.
    baseline, enhanced : Micrograph
        Restorations of the first.
    label : str
        What the first is called in tables.
    pair : str
        What both are called together.
    data_range : float
        Grey levels from black to white.
    """

    truth: Micrograph
    first: Micrograph
    second: Micrograph
    baseline: Micrograph
    enhanced: Micrograph
    label: str = "Degraded input"
    pair: str = "Two exposures"
    data_range: float = 255.0


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the field, measured against the truth.

    Attributes
    ----------
    label : str
        Name in tables and legends.
    image : Micrograph
        The field.
    metrics : Metrics
        Against the truth, gain and offset fitted first.
    cross : FrcResult or None
        FRC against the truth; None for the truth itself.
    spectrum : RadialSpectrum
        Radial power.
    """

    label: str
    image: Micrograph
    metrics: Metrics
    cross: FrcResult | None
    spectrum: RadialSpectrum


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of one field.

    Attributes
    ----------
    truth, degraded, baseline, enhanced : Version
        The field as it is, as it was taken, and as two methods restore it.
    pair : FrcResult
        FRC of two exposures, which needs no truth.
    map_pair, map_degraded, map_enhanced : FrcMap
        Local resolution: of the exposures, and against the truth before and after.
    pair_label : str
        What the exposures are called.
    data_range : float
        Grey levels from black to white.
    """

    truth: Version
    degraded: Version
    baseline: Version
    enhanced: Version
    pair: FrcResult
    map_pair: FrcMap
    map_degraded: FrcMap
    map_enhanced: FrcMap
    pair_label: str
    data_range: float

    def versions(self) -> Iterator[Version]:
        """Give the versions in the order of tables.

        Yields
        ------
        Version
            Degraded, baseline, enhanced, truth.
        """
        yield from (self.degraded, self.baseline, self.enhanced, self.truth)


def measure_case(case: Case) -> Job[Measured]:
    """Measure every version of a field.

    Parameters
    ----------
    case : Case
        The field.

    Returns
    -------
    Measured
        All figures.

    Yields
    ------
    Progress
        Blocks of the maps.
    """
    from napari_semsr.analysis import measure_frc, measure_frc_map

    truth, first = case.truth, case.first
    against = FrcMapOptions(step=_MAP_STEP, reference=True)
    map_pair = yield from measure_frc_map(
        first, case.second, FrcMapOptions(step=_MAP_STEP)
    )
    map_degraded = yield from measure_frc_map(first, truth, against)
    map_enhanced = yield from measure_frc_map(case.enhanced, truth, against)
    grey = case.data_range
    return Measured(
        truth=_version("Truth", truth, None, grey),
        degraded=_version(case.label, first, truth, grey),
        baseline=_version("Wiener (scikit-image)", case.baseline, truth, grey),
        enhanced=_version("Enhanced", case.enhanced, truth, grey),
        pair=measure_frc(first, case.second),
        map_pair=map_pair,
        map_degraded=map_degraded,
        map_enhanced=map_enhanced,
        pair_label=case.pair,
        data_range=grey,
    )


def _version(
    label: str, image: Micrograph, truth: Micrograph | None, data_range: float
) -> Version:
    """Measure one version."""
    from napari_semsr.analysis import measure_frc, measure_metrics, radial_spectrum

    match: Any = None if truth is None else "affine"
    against = FrcOptions(reference=True)
    return Version(
        label=label,
        image=image,
        metrics=measure_metrics(image, truth, data_range=data_range, match=match),
        cross=None if truth is None else measure_frc(image, truth, against),
        spectrum=radial_spectrum(image),
    )
